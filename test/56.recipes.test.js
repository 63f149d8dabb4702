// The recipes of docs/deployment.md, with the server of that page as real processes: no note that was answered with 201
// is lost.

import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { install, startServer } from './guides.js'
import { freePort } from './servers.js'

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
