// The examples of servers: an API of Fastify behind nginx, of which a node is killed, and one of Bun.serve.

import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { missing, PROXIES, startBalancer } from './balancers.js'
import { bunProgram, startProcess, tempDir } from './helpers.js'
import { freePort } from './servers.js'

const main = (name) => fileURLToPath(new URL(`../examples/${name}/main.js`, import.meta.url))
const freePorts = (n) => Promise.all(Array.from({ length: n }, () => freePort()))

/** Starts a node, and resolves once it says that it listens. */
async function startNode(program, ...args) {
  const child = startProcess(program, args)
  if ((await child.line()) === null) expect.fail((await child.ended).stderr)
  return child
}

/** A client that sends back the token that it got last. */
function session(origin) {
  let token
  const ask = async (method, path, text, at = origin) => {
    const headers = { ...(token && { 'x-replic-token': token }) }
    const isJson = text !== undefined && typeof text !== 'string'
    if (isJson) headers['content-type'] = 'application/json'
    const body = isJson ? JSON.stringify(text) : text
    const response = await fetch(at + path, { method, headers, body })
    token = response.headers.get('x-replic-token') ?? token
    return response
  }
  return { ask, notes: async (at) => (await ask('GET', '/notes', undefined, at)).json() }
}

it.skipIf(missing.includes('nginx'))(
  'Fastify behind nginx: a session goes on while a node is killed and comes back',
  async () => {
    const dir = tempDir()
    const [https, peers] = [await freePorts(3), await freePorts(3)]
    const start = (i) =>
      startNode(
        execPath,
        main('fastify'),
        join(dir, `${i}.db`),
        `${11 + i}`,
        https[i],
        peers[i],
        ...peers.filter((_, other) => other !== i),
      )
    const nodes = await Promise.all([0, 1, 2].map(start))
    const origin = await startBalancer(PROXIES.nginx, https)
    const { ask, notes } = session(origin)

    const expected = []
    const write = async (id) => {
      expect((await ask('PUT', `/notes/${id}`, { text: `note ${id}` })).status).toBe(204)
      expected.push({ id, text: `note ${id}` })
      expect(await notes()).toEqual(expected) // its own writes, whoever answers
    }
    for (const id of ['a', 'b', 'c']) await write(id)
    // Everybody has them: what is killed now takes nothing along.
    for (const port of https) expect(await notes(`http://127.0.0.1:${port}`)).toEqual(expected)
    nodes[1].kill()
    await nodes[1].ended
    for (const id of ['d', 'e', 'f', 'g']) await write(id)

    nodes[1] = await start(1)
    expect(await notes(`http://127.0.0.1:${https[1]}`)).toEqual(expected)
    expect((await ask('DELETE', '/notes/a')).status).toBe(204)
    expect((await ask('GET', '/notes/a')).status).toBe(404)
    expect((await ask('DELETE', '/notes/never')).status).toBe(404)
    expect((await ask('PUT', '/notes/x', { txt: 1 })).status).toBe(400)

    for (const node of nodes) node.kill('SIGTERM')
    for (const node of nodes) expect(await node.ended).toMatchObject({ code: 0, stderr: '' })
  },
  120_000,
)

it('Bun.serve: two nodes, and a client that goes from one to the other', async () => {
  const dir = tempDir()
  const [one, two] = await freePorts(2)
  const nodes = [
    await startNode(bunProgram(), main('bun'), join(dir, '1.db'), one),
    await startNode(bunProgram(), main('bun'), join(dir, '2.db'), two, `ws://127.0.0.1:${one}`),
  ]
  const [atOne, atTwo] = [`http://127.0.0.1:${one}`, `http://127.0.0.1:${two}`]
  const { ask, notes } = session(atOne)
  expect((await ask('PUT', '/notes/a', 'hello')).status).toBe(204)
  // Linked or not yet: refused with 503 until the token is covered, and never without the note.
  let there = await ask('GET', '/notes', undefined, atTwo)
  while (there.status === 503) there = await ask('GET', '/notes', undefined, atTwo)
  expect(await there.json()).toEqual([{ id: 'a', text: 'hello' }])
  expect((await ask('PUT', '/notes/b', 'back', atTwo)).status).toBe(204)
  let here = await ask('GET', '/notes')
  while (here.status === 503) here = await ask('GET', '/notes')
  expect(await here.json()).toHaveLength(2)
  expect((await ask('DELETE', '/notes/a')).status).toBe(204)
  expect(await notes()).toEqual([{ id: 'b', text: 'back' }])
  for (const node of nodes) node.kill('SIGTERM')
  for (const node of nodes) expect(await node.ended).toMatchObject({ code: 0, stderr: '' })
})
