// npm run demo: the main job on real input. Several processes write their own SQLite files at the same
// time, one is killed and restarted, another cut off and reconnected; and all converge.
//
//   main.js     this: the course of events
//   cluster.js  the peers as seen from here
//   peer.js     one peer: a child process; edit.js is what it writes, digest.js what it proves
//   cities.js   the input and its tables
//   ui.js       progress; report.js is the verdict at the end

import { mkdtempSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { highest, lag, Peer, size } from './cluster.js'
import { HELP, readOptions } from './options.js'
import { report } from './report.js'
import { number, Progress } from './ui.js'

const STALL_MS = 60_000 // no vector has moved for so long: it will not be, and that is a failure

/** One run. */
class Demo {
  #options
  #dir
  #peers
  #progress
  #phase = 'starting'
  #began = performance.now()
  #rates = new Map() // peer -> { at, patches, rate }: measured over about a second
  #abort

  /** Rejects when anything fails, whatever is being waited for. */
  failed = new Promise((_, reject) => {
    this.#abort = reject
  })

  constructor(options) {
    this.#options = options
    this.#dir = mkdtempSync(join(tmpdir(), 'replic-demo-'))
    this.#peers = Array.from(
      { length: options.peers },
      (_, index) => new Peer(index, { ...options, dir: this.#dir }),
    )
    for (const peer of this.#peers) peer.on('failed', this.#abort)
    this.#progress = new Progress(process.stdout, () => this.#look())
  }

  /** Resolves with the report: { lines, ok }. */
  async run() {
    this.#progress.start()
    await this.#load()
    await this.#edit()
    await this.#converge()
    this.#enter('comparing')
    const states = await this.#all(async (peer) => {
      const { vector, tables } = await peer.ask('digest')
      return { name: peer.name, peerId: peer.peerId, acked: peer.acked, vector, tables }
    })
    await this.#all((peer) => peer.close())
    this.#progress.stop()
    return report(states)
  }

  async #load() {
    await this.#all((peer) => peer.start())
    await this.#all((peer) => this.#link(peer))
    this.#enter('loading')
    const [{ all }] = await this.#all(async (peer) => {
      const loaded = await peer.ask('load')
      this.#news(`${peer.name} has loaded its ${number(loaded.mine)} cities`)
      return loaded
    })
    await this.#equalVectors()
    this.#news(`all peers have all ${number(all)} cities`)
  }

  // The mesh: who comes later dials those before.
  #link(peer) {
    return peer.ask('link', { ports: this.#peers.slice(0, peer.index).map(({ port }) => port) })
  }

  async #edit() {
    this.#enter('editing')
    await this.#all((peer) => peer.ask('edit'))
    const victim = this.#peers[1]
    const hermit = this.#peers[2] ?? this.#peers[0]
    const at = (share, step) => after(this.#options.seconds * 1000 * share).then(step)
    await Promise.all([
      at(0.2, () => this.#cut(hermit)).then(() => at(0.4, () => this.#heal(hermit))),
      at(0.4, () => this.#kill(victim)).then(() => at(0.2, () => this.#restart(victim))),
      after(this.#options.seconds * 1000),
    ])
    await this.#all((peer) => peer.ask('stop'))
    this.#news('writing has stopped')
  }

  async #cut(peer) {
    await peer.ask('cut')
    peer.state = 'cut off'
    this.#news(`${peer.name} is cut off, and goes on editing`)
  }

  async #heal(peer) {
    await peer.ask('heal')
    peer.state = 'up'
    this.#news(`${peer.name} is back, behind by ${number(lag(peer, highest(this.#peers)))} patches`)
  }

  async #kill(peer) {
    await peer.kill()
    this.#news(
      `${peer.name} is killed (SIGKILL); it had acknowledged ${number(peer.acked)} patches`,
    )
  }

  async #restart(peer) {
    await peer.start()
    await this.#link(peer)
    await peer.ask('edit')
    this.#news(
      `${peer.name} runs again on its file, behind by ${number(lag(peer, highest(this.#peers)))} patches`,
    )
  }

  async #converge() {
    this.#enter('converging')
    const began = performance.now()
    await this.#equalVectors()
    this.#news(`all vectors are equal, ${((performance.now() - began) / 1000).toFixed(1)} s later`)
  }

  // Peers tell their vectors whenever they change; nobody is asked again and again.
  async #equalVectors() {
    let patches = -1
    let stall
    let look
    await new Promise((resolve) => {
      look = () => {
        const wanted = highest(this.#peers)
        if (this.#peers.every((peer) => lag(peer, wanted) === 0)) return resolve()
        const now = this.#peers.reduce((sum, { vector }) => sum + size(vector), 0)
        if (now === patches) return
        patches = now
        clearTimeout(stall)
        stall = setTimeout(() => this.#abort(new Error(this.#stalled())), STALL_MS).unref()
      }
      for (const peer of this.#peers) peer.on('told', look)
      look()
    })
    clearTimeout(stall)
    for (const peer of this.#peers) peer.off('told', look)
  }

  #stalled() {
    const wanted = highest(this.#peers)
    const lacks = this.#peers.map((peer) => `${peer.name} lacks ${number(lag(peer, wanted))}`)
    return `nothing has arrived anywhere for ${STALL_MS / 1000} s: ${lacks.join(', ')} patches`
  }

  #look() {
    const wanted = highest(this.#peers)
    const peers = this.#peers.map((peer) => ({
      name: peer.name,
      state: peer.state,
      rows: peer.rows,
      patches: size(peer.vector),
      rate: this.#rate(peer),
      lag: lag(peer, wanted),
      linksUp: peer.linksUp,
      links: this.#peers.length - 1,
    }))
    return { phase: this.#phase, seconds: (performance.now() - this.#began) / 1000, peers }
  }

  #rate(peer) {
    const now = performance.now()
    const patches = size(peer.vector)
    const last = this.#rates.get(peer) ?? { at: now, patches, rate: 0 }
    const seconds = (now - last.at) / 1000
    if (seconds < 0.9) {
      this.#rates.set(peer, last)
      return last.rate
    }
    const rate = Math.round((patches - last.patches) / seconds)
    this.#rates.set(peer, { at: now, patches, rate })
    return rate
  }

  #enter(phase) {
    this.#phase = phase
  }

  #news(text) {
    const seconds = (performance.now() - this.#began) / 1000
    this.#progress.news(`${seconds.toFixed(1).padStart(5)} s  ${text}`)
  }

  #all(step) {
    return Promise.all(this.#peers.map(step))
  }

  /** Ends the children that still run, and removes the files unless they are to be kept. */
  async end() {
    this.#progress.stop()
    await this.#all((peer) => peer.kill())
    if (this.#options.keep) process.stdout.write(`the files are kept in ${this.#dir}\n`)
    else rmSync(this.#dir, { recursive: true, force: true })
  }
}

// The peers keep this process alive, not its clock: after Ctrl-C nothing is to wait for.
const after = (ms) => delay(ms, undefined, { ref: false })

async function main() {
  let options
  try {
    options = readOptions(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`demo: ${error.message}\nnpm run demo -- --help tells the options\n`)
    return 2
  }
  if (options.help) {
    process.stdout.write(HELP)
    return 0
  }
  const { peers, seconds, seed } = options
  process.stdout.write(`${peers} peers, editing for ${seconds} s, --seed ${seed}\n`)
  const demo = new Demo(options)
  const signal = new Promise((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(name, resolve)
  })
  try {
    const result = await Promise.race([demo.run(), demo.failed, signal])
    if (typeof result === 'string') return 128 + constants.signals[result]
    process.stdout.write(`\n${result.lines.join('\n')}\n`)
    return result.ok ? 0 : 1
  } catch (error) {
    process.stderr.write(`demo: ${error.message}\n`)
    return 1
  } finally {
    await demo.end()
  }
}

process.exitCode = await main()
