// The recipes of docs/deployment.md, with the server of that page as real processes: no note that was answered with 201
// is lost.

import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { describe, expect, it } from 'vitest'
import { isTested } from './chaos/play.js'
import { install, startServer } from './guides.js'
import { freePort } from './servers.js'
import { until } from './until.js'

const isUp = /"state":"up"/
const isDown = /"state":"down"/

/** Writes notes over HTTP, each of which is answered. */
async function write(port, texts) {
  const url = `http://127.0.0.1:${port}`
  const answers = texts.map((body) => fetch(url, { method: 'POST', body }))
  for (const { status } of await Promise.all(answers)) expect(status).toBe(201)
}

const numbered = (what, n) => Array.from({ length: n }, (_, i) => `${what} ${i}`)

/** The notes of a server, sorted. */
async function notes(port) {
  const all = await (await fetch(`http://127.0.0.1:${port}`)).json()
  return all.map(({ text }) => text)
}

describe('a container without a volume', () => {
  /** A hub, and an instance that is linked to it, whose file is in a folder of its own. */
  async function hubAndInstance(change) {
    const cwd = install('deployment', change)
    const [replicHub, httpHub, replic, http] = await Promise.all([1, 2, 3, 4].map(freePort))
    const startHub = () =>
      startServer(cwd, { DB_FILE: 'hub.db', REPLIC_PORT: replicHub, HTTP_PORT: httpHub })
    const hub = await startHub()
    const folder = join(cwd, 'instance')
    mkdirSync(folder)
    const instance = await startServer(cwd, {
      DB_FILE: join(folder, 'app.db'),
      REPLIC_PORT: replic,
      HTTP_PORT: http,
      PEERS: `127.0.0.1:${replicHub}`,
    })
    await instance.shows(isUp)
    return { hub, startHub, httpHub, instance, http, folder }
  }

  it('leaves nothing behind where the hub is down at SIGTERM, and comes back', async () => {
    const { hub, startHub, httpHub, instance, http, folder } = await hubAndInstance()
    await write(http, numbered('both', 5))
    hub.kill('SIGTERM')
    expect(await hub.ended).toMatchObject({ code: 0, stderr: '' })
    await instance.shows(isDown)
    await write(http, numbered('only here', 20))
    instance.kill('SIGTERM')
    for (let attempts = 0; attempts < 5; attempts++) await instance.shows(isDown)
    const again = await startHub()
    expect(await instance.ended).toMatchObject({ code: 0, signal: null, stderr: '' })
    rmSync(folder, { recursive: true }) // as that of the container
    expect(await notes(httpHub)).toEqual(
      [...numbered('both', 5), ...numbered('only here', 20)].sort(),
    )
    again.kill('SIGTERM')
    expect(await again.ended).toMatchObject({ code: 0, stderr: '' })
  })

  it('says what nobody else has where the hub stays away', async () => {
    const { hub, instance, http } = await hubAndInstance((source) =>
      source.replace('flushMs: 10_000', 'flushMs: 100'),
    )
    await write(http, numbered('both', 5))
    hub.kill('SIGTERM')
    await hub.ended
    await instance.shows(isDown)
    await write(http, numbered('only here', 3))
    instance.kill('SIGTERM')
    const { code, stderr } = await instance.ended
    expect(code).toBe(0)
    expect(stderr).toMatch(/^nobody else has acknowledged: \{ '\d+': 3 \}\n$/)
  })
})

/** Where notes are written at any time: what was answered with 201 is noted, anything else is not there perhaps. */
function ledger(port) {
  const acked = []
  let isOver = false
  const run = async () => {
    for (let i = 0; !isOver; i++) {
      const body = `note ${i}`
      const status = await fetch(`http://127.0.0.1:${port}`, { method: 'POST', body }).then(
        (answer) => answer.status,
        () => null, // nobody listens now, or it was cut off
      )
      if (status === 201) acked.push(body)
      else await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const done = run()
  return {
    acked,
    more: async () => {
      const { length } = acked
      await until(() => acked.length > length + 20)
    },
    stop: async () => {
      isOver = true
      await done
      return acked
    },
  }
}

it('a server that others reach does not start without its secret', async () => {
  const cwd = install('deployment')
  const env = { ...process.env, REPLIC_HOST: '0.0.0.0', REPLIC_PORT: '0', HTTP_PORT: '0' }
  delete env.REPLIC_SECRET
  const { status, stderr } = spawnSync(execPath, ['server.mjs'], {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 20_000,
  })
  expect(status).toBe(1)
  expect(stderr).toContain('REPLIC_SECRET is not set')
})

describe('a restart loses no note that was answered', () => {
  async function prepare(change) {
    const cwd = install('deployment', change)
    const [replic, port] = await Promise.all([freePort(), freePort()])
    const env = { DB_FILE: 'app.db', REPLIC_PORT: replic, HTTP_PORT: port }
    return { cwd, port, env, start: () => startServer(cwd, env) }
  }

  it('as systemd does it: stopped, then started; killed, then started', async () => {
    const { port, start } = await prepare()
    let server = await start()
    const writing = ledger(port)
    for (const signal of ['SIGTERM', 'SIGKILL', 'SIGTERM', 'SIGKILL']) {
      await writing.more()
      server.kill(signal)
      const { code, stderr } = await server.ended
      if (signal === 'SIGTERM') expect([code, stderr.replace(/\d+/g, 'N')]).toEqual([0, ALONE])
      server = await start()
    }
    await writing.more()
    const acked = await writing.stop()
    expect(await notes(port)).toEqual(expect.arrayContaining(acked))
  })

  it('as pm2 reload does it: the new process is there, then the old one gets SIGINT', async () => {
    const waits = (source) =>
      source
        .replace(
          '{ secret: REPLIC_SECRET }',
          '{ secret: REPLIC_SECRET, lockTimeoutMs: 2 ** 31 - 1 }',
        )
        .replace('const db =', "console.log('ready')\nconst db =")
        .replace("() => console.log('ready')", "() => console.log('serves')")
    const { port, start } = await prepare(waits)
    let server = await start()
    await server.shows(/^serves$/)
    const writing = ledger(port)
    for (let i = 0; i < 3; i++) {
      await writing.more()
      const next = await start() // which waits for the file
      await writing.more()
      server.kill('SIGINT')
      expect(await server.ended).toMatchObject({ code: 0, signal: null })
      await next.shows(/^serves$/)
      server = next
    }
    await writing.more()
    const acked = await writing.stop()
    expect(await notes(port)).toEqual(expect.arrayContaining(acked))
  })
})

const ALONE = "nobody else has acknowledged: { 'N': N }\n" // as there is no other peer

describe('a container', () => {
  const isPossible = spawnSync('unshare', ['-m', 'true']).status === 0
  const obstacle = isPossible ? null : { why: 'only root may mount (unshare -m)', isFixable: true }
  const canMount = isTested('containers with mounts', obstacle)

  /** Starts the server where `from` is mounted on `to`, for this process alone. */
  const contain = (cwd, env, from, to) => {
    const script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return startServer(cwd, env, ['unshare', '-m', 'sh', '-c', script, from, to, execPath])
  }

  it.skipIf(!canMount)('with a volume goes on as the same peer', async () => {
    const cwd = install('deployment')
    const [volume, data] = ['volume', 'data'].map((name) => join(cwd, name))
    for (const folder of [volume, data]) mkdirSync(folder)
    const [replic, port] = await Promise.all([freePort(), freePort()])
    const env = { DB_FILE: join(data, 'app.db'), REPLIC_PORT: replic, HTTP_PORT: port }
    const acked = []
    for (const signal of ['SIGTERM', 'SIGKILL', 'SIGTERM']) {
      const server = await contain(cwd, env, volume, data)
      expect(await notes(port)).toEqual([...acked].sort())
      const texts = numbered(`${acked.length}`, 10)
      await write(port, texts)
      acked.push(...texts)
      server.kill(signal)
      const { stderr } = await server.ended
      expect(stderr).not.toContain('ReplicWarning')
      if (signal === 'SIGTERM')
        expect(stderr).toMatch(/^nobody else has acknowledged: \{ '\d+': \d+ \}\n$/)
    }
  })

  it.skipIf(!canMount)('with its file mounted by itself is warned', async () => {
    const cwd = install('deployment')
    const [outside, inside] = ['outside.db', 'inside.db'].map((name) => join(cwd, name))
    for (const file of [outside, inside]) writeFileSync(file, '')
    const [replic, port] = await Promise.all([freePort(), freePort()])
    const env = { DB_FILE: inside, REPLIC_PORT: replic, HTTP_PORT: port }
    const server = await contain(cwd, env, outside, inside)
    await write(port, numbered('a', 5))
    server.kill('SIGTERM')
    const { code, stderr } = await server.ended
    expect(code).toBe(0)
    expect(stderr).toContain('ReplicWarning')
    expect(stderr).toContain('is a file that is mounted by itself')
    const again = await startServer(cwd, { ...env, DB_FILE: outside }) // closed in order, all is in the file
    expect(await notes(port)).toEqual(numbered('a', 5))
    again.kill('SIGTERM')
    await again.ended
  })
})
