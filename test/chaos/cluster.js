// The parent's side of the peers of peer.js: one process each, through all its lives; what they have
// acknowledged; and whether all is well in the end. Everything is waited for by what happens.

import { spawn } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Ledger } from './ledger.js'
import { TcpProxy } from './proxy.js'
import { UdpProxy } from './udp.js'

const PEER = fileURLToPath(new URL('peer.js', import.meta.url))
const PORT = 7000 // on a host of its own

const PROXIES = { tcp: TcpProxy, udp: UdpProxy }

/** Accepts the event that the link to `peer` is up. */
export const isLinkUp = (peer) => (event) =>
  event.name === 'link' && event.state === 'up' && event.peerId === peer.peerId

/** Accepts the event that the link to `peer` has ended with `code`. */
export const isLinkDown = (peer, code) => (event) =>
  event.name === 'link' &&
  event.state === 'down' &&
  event.peerId === peer.peerId &&
  event.code === code

/** One peer. Emits 'ack', 'refusal', 'event' (see peer.js), 'failed'. */
class Peer extends EventEmitter {
  #given
  #ledger
  #child
  #ended
  #isExpectedToEnd = false
  #asked = new Map() // id -> { resolve, reject }
  #lastId = 0
  #output = '' // the last line, while it is not complete
  #stderr = ''
  #dials = []

  life = 0
  writes = null // the options it writes with; null: it does not

  /** `given`: { index, peerId, path, seed, options, transport, listen, dial, command }. `command` makes that of a process. */
  constructor(given, ledger) {
    super()
    this.setMaxListeners(0)
    this.#given = given
    this.#ledger = ledger
    this.index = given.index
    this.peerId = given.peerId
  }

  /** Starts its process, the first time or again, on its file; links and writes as before. */
  async start() {
    const { index, command, path, seed, peerId, listen, dial, transport, options } = this.#given
    const [program, ...args] = command([process.execPath, PEER])
    this.life++
    this.#isExpectedToEnd = false
    this.#child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
    this.#listen()
    const opened = await this.ask('open', {
      path,
      listen,
      dial,
      transport,
      life: this.life,
      seed: seed + 1000 * index,
      options: { ...options, peerId },
    })
    this.port = opened.port
    const issued = opened.vector[peerId] ?? 0
    const acked = this.#ledger.vector[peerId] ?? 0
    if (issued < acked) {
      throw new Error(`peer ${peerId} had acknowledged ${acked} and came back with ${issued}`)
    }
    this.emit('started')
    if (this.#dials.length > 0) await this.ask('link', { dials: this.#dials })
    if (this.writes) await this.ask('write', this.writes)
  }

  #listen() {
    const child = this.#child
    this.#output = ''
    this.#stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text) => this.#onOutput(text))
    child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#stderr += text
    })
    child.on('message', (message) => this.#onMessage(message))
    child.on('error', (error) => this.#fail(error))
    this.#ended = new Promise((resolve) => {
      child.on('close', (code, signal) => {
        const how = `${signal ?? `status ${code}`}${this.#stderr && `: ${this.#stderr}`}`
        const error = new Error(`peer ${this.peerId} ended with ${how}`)
        if (!this.#isExpectedToEnd) this.#fail(error)
        for (const { reject } of this.#asked.values()) reject(error)
        this.#asked.clear()
        resolve()
      })
    })
  }

  get path() {
    return this.#given.path
  }

  /** Under another peerId from its next start on, as whose file was lost must be. */
  becomes(peerId) {
    this.#given.peerId = peerId
    this.peerId = peerId
  }

  get isRunning() {
    return this.#child?.connected === true
  }

  /** Resolves with the answer; rejects if it fails or ends before. */
  ask(what, args) {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject })
      this.#child.send({ id, ask: what, ...args }, (error) => error && reject(error))
    })
  }

  async write(writes = {}) {
    this.writes = writes
    await this.ask('write', writes)
  }

  /** Resolves when all that it was writing has settled. */
  async stop() {
    this.writes = null
    await this.ask('stop')
  }

  /** Keeps dialing `dials`, a list of { host, port }, in this life and the next. */
  async link(dials) {
    this.#dials.push(...dials)
    await this.ask('link', { dials })
  }

  /** SIGKILL; resolves when it is gone and all that it had recorded is read. */
  async kill() {
    if (!this.#child) return
    this.#isExpectedToEnd = true
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  freeze() {
    this.#child.kill('SIGSTOP')
  }

  thaw() {
    this.#child.kill('SIGCONT')
  }

  /** Resolves when it has acknowledged `n` more writes. */
  acks(n) {
    return this.#times('ack', n)
  }

  /** Resolves when `n` more writes were refused with that code. */
  refusals(n, code) {
    return this.#times('refusal', n, (given) => given === code)
  }

  /** Resolves with its next event that `wanted` accepts. */
  event(wanted) {
    return this.#times('event', 1, wanted)
  }

  #times(name, n, wanted = () => true) {
    return new Promise((resolve) => {
      let left = n
      const count = (what) => {
        if (!wanted(what) || --left > 0) return
        this.off(name, count)
        resolve(what)
      }
      this.on(name, count)
    })
  }

  // A line is complete with its end: of the last one before a kill there may be less.
  #onOutput(text) {
    const lines = (this.#output + text).split('\n')
    this.#output = lines.pop()
    try {
      for (const line of lines) {
        const { isAck, code } = this.#ledger.record(this.peerId, this.life, line)
        this.emit(isAck ? 'ack' : 'refusal', code)
      }
    } catch (error) {
      this.#fail(error)
    }
  }

  #onMessage({ id, answer, event, failed }) {
    if (event) this.emit('event', event)
    if (failed !== undefined) {
      const error = new Error(`peer ${this.peerId}: ${failed}`)
      this.#asked.get(id)?.reject(error)
      this.#fail(error)
    } else this.#asked.get(id)?.resolve(answer)
    this.#asked.delete(id)
  }

  #fail(error) {
    this.emit('failed', error)
  }
}

/**
 * Several peers, with their files in `dir`, or where `paths` says. With a `network` (see netns.js) each is on
 * a host of its own; without, all are on this one, and every link leads through a proxy, whose lines have the
 * settings `line`. `transport`: tcp or udp. `options` are those of Replica.open(), `dial` those of connect().
 */
export class Cluster extends EventEmitter {
  #network
  #seed
  #line
  #transport
  #proxies = new Map() // 'i-j' -> proxy
  #healedMs

  peers
  ledger = new Ledger()

  constructor({
    size,
    dir,
    seed,
    network,
    line = {},
    paths = {},
    transport = 'tcp',
    options,
    dial,
  }) {
    super()
    this.#network = network
    this.#seed = seed
    this.#line = line
    this.#transport = transport
    this.peers = Array.from({ length: size }, (_, index) => {
      const given = {
        index,
        seed,
        options,
        dial,
        transport,
        peerId: 11 + index,
        path: paths[index] ?? join(dir, `peer-${index}.db`),
        listen: network ? { host: '0.0.0.0', port: PORT } : { host: '127.0.0.1', port: 0 },
        command: (command) => network?.on(index, command) ?? command,
      }
      return new Peer(given, this.ledger)
    })
    for (const peer of this.peers) {
      peer.on('failed', (error) => this.emit('failed', error))
      peer.on('started', () => this.#retarget(peer))
    }
  }

  async start() {
    await this.all((peer) => peer.start())
  }

  all(step) {
    return Promise.all(this.peers.map(step))
  }

  /** Those whose process runs. */
  get running() {
    return this.peers.filter((peer) => peer.isRunning)
  }

  /** Peer i dials peer j; at `host` if given, its address at a cable. Resolves when the link is up. */
  async link(i, j, host) {
    const [from, to] = [this.peers[i], this.peers[j]]
    const up = [from.event(isLinkUp(to)), to.event(isLinkUp(from))]
    await from.link([await this.#addressOf(i, j, host)])
    await Promise.all(up)
  }

  async #addressOf(i, j, host) {
    const target = {
      host: host ?? this.#network?.address(j) ?? '127.0.0.1',
      port: this.peers[j].port,
    }
    if (this.#network) return target
    const seed = this.#seed + 10 * this.#proxies.size
    const { open } = PROXIES[this.#transport]
    const proxy = await open({ target, seed, ...this.#line })
    this.#proxies.set(`${i}-${j}`, proxy)
    return proxy.address
  }

  /** Each peer dials all before it. */
  async mesh() {
    for (let i = 0; i < this.peers.length; i++) {
      for (let j = 0; j < i; j++) await this.link(i, j)
    }
  }

  /** Each peer dials the one before it. */
  async chain() {
    for (let i = 1; i < this.peers.length; i++) await this.link(i, i - 1)
  }

  get proxies() {
    return [...this.#proxies.values()]
  }

  // It may listen on another port in its new life.
  #retarget(peer) {
    for (const [name, proxy] of this.#proxies) {
      if (name.endsWith(`-${peer.index}`)) proxy.retarget({ ...proxy.target, port: peer.port })
    }
  }

  /** All write, see peer.js. */
  async write(writes) {
    await this.all((peer) => peer.write(writes))
  }

  async stop() {
    await this.all((peer) => peer.stop())
  }

  /** Resolves when these peers (all) have what any of them has now. */
  async synced(peers = this.peers) {
    const wanted = new Map()
    const raise = ([origin, sequence]) =>
      wanted.set(origin, Math.max(sequence, wanted.get(origin) ?? 0))
    for (const { vector } of await Promise.all(peers.map((peer) => peer.ask('status')))) {
      Object.entries(vector).forEach(raise)
    }
    const tokens = [...wanted].map(([origin, sequence]) => `${origin}.${sequence}`)
    await Promise.all(peers.map((peer) => peer.ask('wait', { tokens })))
  }

  /** Ends a fault; resolves when what any peer had then is everywhere. The longest that took is kept. */
  async heal(step) {
    await step()
    const began = performance.now()
    await this.synced()
    this.#healedMs = Math.max(this.#healedMs ?? 0, performance.now() - began)
  }

  /**
   * The end of every story: writing stops, all converge, and all is checked. Gives { problems, lost, healedMs,
   * peers, acked, refused, patches, convergedMs }: healedMs from the end of a fault on, convergedMs from the end
   * of writing.
   */
  async finish() {
    const stoppedAt = performance.now()
    await this.stop()
    await this.synced()
    const convergedMs = performance.now() - stoppedAt
    const states = await this.all((peer) => peer.ask('state'))
    const problems = this.ledger.problems(states)
    const lost = this.ledger.lost(states)
    for (const peer of this.peers) {
      const { equal, peers } = await peer.ask('verify')
      if (!equal) problems.push(`verify() of peer ${peer.peerId}: ${JSON.stringify(peers)}`)
    }
    const patches = Object.values(states[0].vector).reduce((sum, sequence) => sum + sequence, 0)
    const { ackedCount: acked, refusedCount: refused } = this.ledger
    const figures = { peers: this.peers.length, acked, refused, patches, convergedMs }
    return { problems, lost, healedMs: this.#healedMs, ...figures }
  }

  /** Kills what still runs. */
  async end() {
    await this.all((peer) => peer.kill())
    await Promise.all(this.proxies.map((proxy) => proxy.close()))
  }
}
