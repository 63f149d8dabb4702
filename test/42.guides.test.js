// The programs in the guides run, and print what the guides say.

import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { describe, expect, it } from 'vitest'
import { isTested } from './chaos/play.js'
import { blocksOf, install, programsOf, ROOT, startServer } from './guides.js'
import { runProcess, startProcess, tempDir } from './helpers.js'
import { bunProgram } from './programs.js'
import { freePort } from './servers.js'

const PROGRAMS = [
  'getting-started',
  'data-modelling',
  'topologies',
  'migrating-from',
  'deployment',
  'operations',
  'consistency',
]
/** The database that docs/migrating-from.md begins with, by another build of SQLite: Bun's. */
async function makeShop(cwd) {
  const { body } = blocksOf('migrating-from').find(({ language }) => language === 'sql')
  const program = `new (require('bun:sqlite').Database)('shop.db').exec(${JSON.stringify(body)})`
  expect(await runProcess(bunProgram(), ['-e', program], { cwd })).toMatchObject({ code: 0 })
}

describe('the programs of', () => {
  it.each(PROGRAMS)('docs/%s.md print what it says', async (page) => {
    const programs = programsOf(page).filter(({ printed }) => printed !== undefined)
    expect(programs.length).toBeGreaterThan(0)
    const cwd = install(page)
    if (page === 'migrating-from') await makeShop(cwd)
    for (const { name, printed } of programs) {
      const outcome = await runProcess(execPath, [name], { cwd })
      expect({ name, ...outcome }).toEqual({
        name,
        code: 0,
        signal: null,
        stdout: printed,
        stderr: '',
      })
    }
  })
})

describe('docs/getting-started.md', () => {
  it('makes a cluster, of which a peer is killed and comes back', async () => {
    const cwd = install('getting-started')
    const [portA, portB, portC] = [await freePort(), await freePort(), await freePort()]
    const start = (...args) => {
      const peer = startProcess(execPath, ['peer.mjs', ...args], { cwd })
      const shows = async (line) => {
        for (let next = ''; next !== line; next = await peer.line()) {
          if (next === null) expect.fail(`${args[0]} has ended before it showed: ${line}`)
        }
      }
      return { ...peer, shows }
    }
    const a = start('a.db', portA)
    let b = start('b.db', portB, portA)
    const c = start('c.db', portC, portA, portB)
    a.send('milk')
    await Promise.all([b.shows('todos: milk'), c.shows('todos: milk')])
    c.send('bread')
    await Promise.all([a.shows('todos: bread, milk'), b.shows('todos: bread, milk')])

    b.kill()
    await b.ended
    a.send('tea')
    await c.shows('todos: bread, milk, tea')
    b = start('b.db', portB, portA)
    await b.shows('todos: bread, milk, tea')
    b.send('salt')
    await Promise.all([a, c].map((peer) => peer.shows('todos: bread, milk, salt, tea')))
  })

  it('is understood by CommonJS', async () => {
    const { name } = programsOf('getting-started').find((program) => program.name.endsWith('.cjs'))
    const outcome = await runProcess(execPath, ['--no-warnings', name], {
      cwd: install('getting-started'),
    })
    expect(outcome).toEqual({ code: 0, signal: null, stdout: '1\n', stderr: '' })
  })

  it('is understood by TypeScript, as test:types checks', () => {
    const { body } = blocksOf('getting-started').find(({ language }) => language === 'ts')
    const checked = readFileSync(join(ROOT, 'test/types/guide.test-d.ts'), 'utf8')
    expect(checked.slice(checked.indexOf('\n\n') + 2)).toBe(body)
  })
})

describe('docs/deployment.md', () => {
  it('has a server whose peers have everything when SIGTERM has ended it', async () => {
    const cwd = install('deployment')
    const [replicA, httpA, replicB, httpB] = await Promise.all([1, 2, 3, 4].map(freePort))
    const a = await startServer(cwd, { DB_FILE: 'a.db', REPLIC_PORT: replicA, HTTP_PORT: httpA })
    await startServer(cwd, {
      DB_FILE: 'b.db',
      REPLIC_PORT: replicB,
      HTTP_PORT: httpB,
      PEERS: `127.0.0.1:${replicA}`,
    })
    await a.shows(/"state":"up"/)

    const url = `http://127.0.0.1:${httpA}`
    expect((await fetch(`${url}/health`)).status).toBe(200)
    expect(await (await fetch(`${url}/metrics`)).text()).toContain('replic_links')
    const texts = Array.from({ length: 50 }, (_, i) => `note ${i}`)
    await Promise.all(texts.map((body) => fetch(url, { method: 'POST', body })))
    a.kill('SIGTERM')
    expect(await a.ended).toMatchObject({ code: 0, signal: null, stderr: '' })
    const there = await (await fetch(`http://127.0.0.1:${httpB}`)).json()
    expect(there.map(({ text }) => text)).toEqual(texts.sort())
  })
})

describe('docs/deployment.md', () => {
  const { error } = spawnSync('systemd-analyze', ['--version'])
  const obstacle = error
    ? { why: 'there is no systemd-analyze (package systemd)', isFixable: true }
    : null

  it.skipIf(!isTested('the unit of docs/deployment.md', obstacle))(
    'has a unit that systemd takes',
    () => {
      const { body } = blocksOf('deployment').find(({ language }) => language === 'ini')
      const path = join(tempDir(), 'notes.service')
      writeFileSync(path, body.replace('/usr/bin/node', execPath))
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', path], {
        encoding: 'utf8',
      })
      expect(stderr.split('\n').filter((line) => line.includes('notes.service'))).toEqual([])
      expect(status).toBe(0)
    },
  )
})

describe('docs/data-modelling.md', () => {
  it('has keys that grow with time', async () => {
    const dir = install('data-modelling')
    const { uuidv7 } = await import(/* @vite-ignore */ join(dir, 'uuidv7.mjs'))
    const form = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
    const keys = [1, 255, 256, 1_700_000_000_000, 2 ** 47].map((now) => uuidv7(now))
    for (const key of keys) expect(key).toMatch(form)
    expect([...keys].sort()).toEqual(keys)
    expect(uuidv7(5)).not.toBe(uuidv7(5))
    expect(keys[3].startsWith('018bcfe5-6800-7')).toBe(true)
  })
})
