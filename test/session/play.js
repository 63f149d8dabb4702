// Three nodes, nginx before them, lines between them that delay and break, and sessions that write and read
// through whatever node nginx gives them to. Everything random comes from a seed.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { randomFrom } from '../../examples/demo/random.js'
import { TcpProxy } from '../chaos/proxy.js'
import { startNginx } from '../servers.js'

const NODE = fileURLToPath(new URL('./node.js', import.meta.url))
const SHARED = 20 // rows that all sessions write: 1, 3, 5, ...
const FIRST = 1000 // the rows of the first session
const CUT_EVERY = 250 // operations
const OUTAGE_MS = 500 // at most
const TIMEOUT_MS = 60_000

/**
 * `programs`: { node, bun }. `guarded`: whether the nodes use readYourWrite. `clock`: environment of a process
 * whose clock is behind. Resolves with { history, finals, failures, cuts } when `operations` are done and the
 * nodes are equal, or cannot become so.
 */
export async function play({ programs, clock, guarded, operations, sessions, seed }) {
  const dir = mkdtempSync(join(tmpdir(), 'replic-session-'))
  const closing = []
  try {
    const stage = await build({ dir, programs, clock, guarded, seed, closing })
    const run = new Run({ port: stage.port, sessions, operations, seed })
    run.on = stage.cutter(randomFrom(seed + 99))
    await run.play()
    const finals = await stage.finals()
    return { ...run.outcome, cuts: stage.cuts, finals }
  } finally {
    for (const close of closing.reverse()) await close()
    rmSync(dir, { recursive: true, force: true })
  }
}

// ---- nodes, lines, nginx ----

async function build({ dir, programs, clock, guarded, seed, closing }) {
  const kinds = [
    ['express', programs.node, process.env],
    ['fastify', programs.node, { ...process.env, ...clock }],
    ['bun', programs.bun, process.env],
  ]
  const nodes = await Promise.all(
    kinds.map(([framework, program, env], i) => {
      const options = { framework, path: join(dir, `${i}.db`), peerId: 11 + i, guarded }
      return startNode(program, { ...options, timeoutMs: TIMEOUT_MS }, env, closing)
    }),
  )
  const proxies = []
  for (const [from, to] of [
    [0, 1],
    [1, 2],
    [2, 0],
  ]) {
    const target = { host: '127.0.0.1', port: nodes[to].tcp }
    const proxy = await TcpProxy.open({ target, seed: seed + 10 * from, delayMs: [0, 500] })
    closing.push(() => proxy.close())
    proxies.push(proxy)
    nodes[from].send(JSON.stringify([proxy.address.port]))
  }
  const port = await startProxy(nodes, closing)
  return new Stage(nodes, proxies, port)
}

async function startNode(program, options, env, closing) {
  const child = spawn(program, [NODE, JSON.stringify(options)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env,
  })
  const ended = once(child, 'exit')
  closing.push(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const { value, done } = await lines.next()
  if (done) throw new Error(`${options.framework} has ended`)
  return { ...JSON.parse(value), send: (line) => child.stdin.write(`${line}\n`) }
}

async function startProxy(nodes, closing) {
  const { port, close } = await startNginx(
    (port) => `
      keepalive_requests 1000000;
      upstream nodes {
        ${nodes.map(({ http }) => `server 127.0.0.1:${http};`).join(' ')}
        keepalive 512; keepalive_requests 1000000; keepalive_timeout 2s; # nodes end theirs after 5 s
      }
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_read_timeout 120s;
        }
      }`,
    { events: 'worker_connections 8192;' },
  )
  closing.push(close)
  return port
}

class Stage {
  cuts = 0
  #nodes
  #proxies

  constructor(nodes, proxies, port) {
    this.#nodes = nodes
    this.#proxies = proxies
    this.port = port
  }

  /** What is called after each operation: every now and then a line breaks, and stays broken for a while. */
  cutter(random) {
    let left = CUT_EVERY
    return () => {
      if (--left > 0) return
      left = CUT_EVERY
      const proxy = this.#proxies[random(this.#proxies.length)]
      this.cuts++
      proxy.refuse(true)
      proxy.reset()
      setTimeout(() => proxy.refuse(false), random(OUTAGE_MS))
    }
  }

  /** The rows of all nodes, once they have the same vector. */
  async finals() {
    for (const proxy of this.#proxies) proxy.set({ delayMs: [0, 0] })
    for (;;) {
      const states = await Promise.all(
        this.#nodes.map(async ({ http }) => (await fetch(`http://127.0.0.1:${http}/state`)).json()),
      )
      const vectors = states.map(({ token }) =>
        token.split('-')[0].split('~').map(decimal).sort().join(),
      )
      if (new Set(vectors).size === 1) return states.map(({ rows }) => rows)
    }
  }
}

// The first entry of a token is in decimal, the others in base 36.
const decimal = (entry, i) =>
  i === 0
    ? entry
    : entry
        .split('.')
        .map((part) => Number.parseInt(part, 36))
        .join('.')

// ---- sessions ----

class Run {
  on = () => {} // after each operation
  outcome = { history: [], failures: [] }
  #port
  #agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY })
  #left
  #sessions

  constructor({ port, sessions, operations, seed }) {
    this.#port = port
    this.#left = operations
    this.#sessions = Array.from({ length: sessions }, (_, i) => new Session(i, sessions, seed))
  }

  async play() {
    await Promise.all(this.#sessions.map((session) => this.#live(session)))
    this.#agent.destroy()
  }

  async #live(session) {
    const { history, failures } = this.outcome
    while (this.#left-- > 0) {
      const operation = session.next()
      for (const rows of operation.told)
        history.push({ session: session.number, kind: 'told', rows })
      const { status, headers, body } = await this.#ask(session, operation).catch((error) => ({
        status: error.message,
      }))
      this.on()
      const { path, rows } = operation
      if (status !== 200) {
        failures.push(`${path} ${status}`)
        if (rows) history.push({ session: session.number, kind: 'maybe', rows })
        continue
      }
      session.answered(headers)
      const seen = rows ?? Object.assign(JSON.parse(body).map(ofRow), { asked: operation.ids })
      history.push({ session: session.number, kind: rows ? 'write' : 'read', rows: seen })
      session.learn(seen)
      if (operation.partner !== undefined) this.#sessions[operation.partner].tell(session)
    }
  }

  #ask(session, { path, rows }) {
    return new Promise((resolve, reject) => {
      const asking = request(
        {
          port: this.#port,
          host: '127.0.0.1',
          path,
          method: rows ? 'POST' : 'GET',
          agent: this.#agent,
          headers: { ...session.headers(), ...(rows && { 'content-type': 'application/json' }) },
        },
        (response) => {
          let body = ''
          response.setEncoding('utf8').on('data', (chunk) => {
            body += chunk
          })
          response.on('end', () =>
            resolve({ status: response.statusCode, headers: response.headers, body }),
          )
        },
      )
      asking.on('error', reject)
      asking.end(rows && JSON.stringify(rows.map(({ base, ...row }) => row)))
    })
  }
}

// A pair's row has n, a shared one a version.
const ofRow = ({ id, n, version }) => (version === null ? { id, n } : { id, n: null, version })

/** What a user does and knows. Even ones use the header, odd ones a cookie. */
class Session {
  number
  #of
  #random
  #token = null
  #cookie = null
  #n = 0
  #versions = 0
  #seen = new Map() // id -> row
  #inbox = [] // { token, rows }
  #handed = [] // tokens that were handed over, until an answer covers them

  constructor(number, of, seed) {
    this.number = number
    this.#of = of
    this.#random = randomFrom(seed * 1000 + number)
  }

  headers() {
    const tokens = [...this.#handed, this.#token].filter(Boolean)
    return {
      ...(tokens.length > 0 && { 'x-replic-token': tokens.join(', ') }),
      ...(this.#cookie && { cookie: `a=b; ${this.#cookie}` }),
    }
  }

  answered(headers) {
    this.#handed = []
    if (this.number % 2) this.#cookie = headers['set-cookie']?.[0].split(';')[0]
    else this.#token = headers['x-replic-token']
  }

  learn(rows) {
    for (const row of rows) this.#seen.set(row.id, row)
  }

  /** Another session hands over its token, with what it has written last and what it has read. */
  tell(other) {
    const token = other.#token ?? other.#cookie?.slice('replic='.length)
    const rows = [...other.#seen.values()].filter(() => this.#random(4) === 0).slice(-6)
    const own = other.#seen.get(FIRST + 2 * other.number)
    if (own) rows.push(own)
    this.#inbox.push({ token, rows })
  }

  /** { told, path, ids } of a read, { told, path, rows } of a write; with `partner`, to hand the token to. */
  next() {
    const inbox = this.#inbox.splice(0, 8)
    if (inbox.length > 0) {
      const told = inbox.map(({ rows }) => rows)
      this.#handed = inbox.map(({ token }) => token).filter(Boolean)
      return { told, ...this.#read(told.flat().map(({ id }) => id)) }
    }
    const choice = this.#random(100)
    if (choice < 50) return { told: [], ...this.#read([]) }
    const operation = {
      told: [],
      path: '/write',
      rows: choice < 80 ? this.#writeOwn() : this.#writeShared(),
    }
    if (this.#random(4) === 0) operation.partner = this.#random(this.#of)
    return operation
  }

  #read(more) {
    const pairs = [this.number, this.#random(this.#of)].flatMap((i) => pair(i))
    const ids = [...new Set([...pairs, ...more.flatMap(withOther), 1 + 2 * this.#random(SHARED)])]
    return { path: `/read?ids=${ids}`, ids }
  }

  #writeOwn() {
    const n = ++this.#n
    return pair(this.number).map((id) => ({ id, n }))
  }

  #writeShared() {
    const id = 1 + 2 * this.#random(SHARED)
    const version = `${this.number}.${++this.#versions}`
    return [{ id, version, base: this.#seen.get(id)?.version ?? null }]
  }
}

const pair = (session) => [FIRST + 2 * session, FIRST + 2 * session + 1]
const withOther = (id) => (id < FIRST ? [id] : [id - (id % 2), id - (id % 2) + 1])
