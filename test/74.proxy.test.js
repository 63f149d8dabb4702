// The configurations in examples/proxy, as they are but for addresses, in the real servers: Debian's packages
// nginx-light, haproxy and caddy.

import { once } from 'node:events'
import { createServer } from 'node:http'
import express from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { missing, PROXIES, startBalancer } from './balancers.js'
import { link, openReplica, until } from './helpers.js'

/** A replica that is served, and can be taken off the network and put back. */
async function startNode(peerId) {
  const db = await openReplica({ peerId })
  const app = express()
  app.use((_req, res, next) => {
    res.setHeader('x-node', peerId)
    next()
  })
  app.use(db.readYourWrite('x-replic-token', { cookie: 'replic', timeoutMs: 60_000 }))
  app.post('/notes/:id', async (req, res) =>
    res.json(await db.upsert('note', { id: +req.params.id })),
  )
  app.get('/notes/:id', async (req, res) =>
    res.json((await db.get('SELECT id FROM note WHERE id = ?', [+req.params.id])) ?? null),
  )
  const server = createServer(app)
  const up = async (port = 0) => {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  }
  const down = async () => {
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  }
  await up()
  const { port } = server.address()
  onTestFinished(() => server.listening && down())
  return { db, port, down, up: () => up(port) }
}

/** The proxy before three nodes that are linked. */
async function start(proxy) {
  const nodes = await Promise.all([11, 12, 13].map(startNode))
  const [a, b, c] = nodes.map(({ db }) => db)
  await Promise.all([link(a, b), link(b, c), link(c, a)])
  const ports = nodes.map(({ port }) => port)
  return { origin: await startBalancer(proxy, ports), nodes }
}

const nodeOf = (response) => Number(response.headers.get('x-node'))
const tokenOf = (response) => response.headers.get('x-replic-token')
const withHeader = (token) => ({ headers: { 'x-replic-token': token } })
const withCookie = (token) => ({ headers: { cookie: `theme=11.dark; replic=${token}; x=13.1` } })

/** How many of `n` requests each node has answered; all must have succeeded. */
async function count(n, ask) {
  const counts = {}
  for (let i = 0; i < n; i++) {
    const response = await ask()
    expect(response.status).toBe(200)
    await response.arrayBuffer()
    counts[nodeOf(response)] = (counts[nodeOf(response)] ?? 0) + 1
  }
  return counts
}

describe.skipIf(missing.length).each(Object.entries(PROXIES))('%s', (_, proxy) => {
  it('gives a request to the node that its token names, others to any, and to any if that is down', async () => {
    const { origin, nodes } = await start(proxy)
    const write = (id) => fetch(`${origin}/notes/${id}`, { method: 'POST' })
    const spread = await count(12, () => fetch(`${origin}/notes/1`))
    expect(Object.keys(spread).sort()).toEqual(['11', '12', '13'])

    const tokens = new Map() // of a write at each node
    for (let id = 1; tokens.size < 3; id++) {
      const response = await write(id)
      const token = tokenOf(response)
      expect(token.split('.')[0]).toBe(`${nodeOf(response)}`) // it begins with who has answered
      tokens.set(nodeOf(response), token)
    }
    for (const [node, token] of tokens) {
      for (const having of [withHeader(token), withCookie(token)]) {
        expect(await count(5, () => fetch(`${origin}/notes/1`, having))).toEqual({ [node]: 5 })
      }
    }
    // The header comes first; what is no token, and a peerId that is in no map, goes anywhere.
    const both = {
      headers: { ...withHeader(tokens.get(11)).headers, ...withCookie(tokens.get(12)).headers },
    }
    expect(await count(5, () => fetch(`${origin}/notes/1`, both))).toEqual({ 11: 5 })
    expect((await fetch(`${origin}/notes/1`, withHeader('nonsense'))).status).toBe(400)
    expect(
      Object.keys(await count(9, () => fetch(`${origin}/notes/1`, withHeader('99.0')))),
    ).toHaveLength(3)

    // Node 12 is down, its replica is not cut off: the others have, or get, what the token asks for.
    await nodes[1].down()
    const token = tokens.get(12)
    const others = await count(10, () => fetch(`${origin}/notes/1`, withHeader(token)))
    expect(Object.keys(others)).not.toContain('12')
    expect(await count(10, () => write(100))).not.toHaveProperty('12')
    await nodes[1].up()
    const answers = async () => {
      const response = await fetch(`${origin}/notes/1`, withHeader(token))
      expect(response.status).toBe(200)
      return nodeOf(response) === 12
    }
    await until(answers)
  })
})
