// The configurations in examples/proxy, as they are but for addresses, in the real servers: Debian's packages
// nginx-light, haproxy and caddy.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { link, openReplica, tempDir, until } from './helpers.js'

const find = (...paths) => paths.find(existsSync)
const PROXIES = {
  nginx: {
    program: find('/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/local/bin/nginx'),
    file: 'nginx.conf',
    // Where files go, and no daemon: what a system's own nginx.conf says before.
    adapt: (text, dir) => {
      const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (kind) => `${kind}_temp_path ${dir}/${kind};`,
      )
      const user = process.getuid?.() === 0 ? 'user root;' : ''
      const main = `${user} daemon off; pid ${dir}/pid; error_log ${dir}/logs/error.log;`
      return `${main}\n${text.replace('http {', `http { access_log off; ${temp.join(' ')}`)}`
    },
    args: (dir, path) => ['-p', dir, '-c', path],
    signal: 'SIGTERM', // else its workers stay
  },
  HAProxy: {
    program: find('/usr/sbin/haproxy', '/usr/local/sbin/haproxy', '/usr/local/bin/haproxy'),
    file: 'haproxy.cfg',
    args: (_, path) => ['-db', '-f', path],
  },
  Caddy: {
    program: find('/usr/bin/caddy', '/usr/local/bin/caddy'),
    file: 'Caddyfile',
    args: (_, path) => ['run', '--adapter', 'caddyfile', '--config', path],
  },
}
const missing = Object.keys(PROXIES).filter((name) => !PROXIES[name].program)
if (missing.length && process.env.CI) throw new Error(`not installed: ${missing}`)
if (missing.length) console.warn(`SKIPPED: ${missing}: not installed (nginx-light, haproxy, caddy)`)

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

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** The proxy before three nodes that are linked. */
async function start({ program, file, adapt = (text) => text, args, signal = 'SIGKILL' }) {
  const nodes = await Promise.all([11, 12, 13].map(startNode))
  const [a, b, c] = nodes.map(({ db }) => db)
  await Promise.all([link(a, b), link(b, c), link(c, a)])
  const dir = tempDir()
  const port = await freePort()
  const ports = { 8080: port, 8011: nodes[0].port, 8012: nodes[1].port, 8013: nodes[2].port }
  const example = fileURLToPath(new URL(`../examples/proxy/${file}`, import.meta.url))
  const text = readFileSync(example, 'utf8').replace(/:(80\d\d)\b/g, (_, of) => `:${ports[of]}`)
  mkdirSync(join(dir, 'logs'))
  writeFileSync(join(dir, file), adapt(text, dir))
  const env = { ...process.env, HOME: dir, XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir }
  const child = spawn(program, args(dir, join(dir, file)), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      said += data
    })
  }
  const ended = once(child, 'exit')
  onTestFinished(async () => {
    child.kill(signal)
    await ended
  })
  const origin = `http://127.0.0.1:${port}`
  await until(() => {
    if (child.exitCode !== null) throw new Error(`${program}: ${said}`)
    return fetch(origin).then(
      () => true,
      () => false,
    )
  })
  return { origin, nodes }
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
