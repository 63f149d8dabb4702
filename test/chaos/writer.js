// A process that writes (child/operated.js), and its parent's ledger of what it has acknowledged.

import { spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { execPath } from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Replica } from '../../lib/index.js'

const CHILD = fileURLToPath(new URL('../child/operated.js', import.meta.url))

/** Emits 'ack', 'refusal' (code), 'trouble' (code). */
export class Writer extends EventEmitter {
  #child
  #answers = [] // of those who wait for one, in order
  #ended
  #dead // why nothing comes any more
  acked = []
  refused = []
  events = []
  warnings = ''
  #pid

  constructor(file, durability, program, command) {
    super()
    this.setMaxListeners(0)
    const options = JSON.stringify({ durability, heartbeatMs: 100 })
    const [name, ...args] = [...command, program, CHILD, file, options]
    this.#child = spawn(name, args)
    this.#child.stdin.on('error', () => {}) // it was killed
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.warnings += text
    })
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#take(line))
    this.#ended = once(this.#child, 'close').then(([code, signal]) => {
      this.#dead = new Error(`the writer has ended (${signal ?? code}): ${this.warnings}`)
      for (const { reject } of this.#answers) reject(this.#dead)
      this.emit('end')
    })
  }

  /** Resolves when it has begun to write. `command` goes before its own. */
  static async start(file, { durability, program = execPath, command = [] }) {
    const writer = new Writer(file, durability, program, command)
    const { pid } = await writer.#answer()
    writer.#pid = pid
    await writer.acks(5)
    return writer
  }

  #take(line) {
    const [sign, ...rest] = line.split(' ')
    if (sign === '+') {
      this.acked.push(Number(rest[0]))
      this.emit('ack')
    } else if (sign === '-') {
      this.refused.push({ code: rest[0], n: Number(rest[1]) })
      this.emit('refusal', rest[0])
    } else if (sign === '!') {
      this.events.push(rest[0])
      this.emit('trouble', rest[0])
    } else this.#answers.shift().resolve(JSON.parse(line.slice(2)))
  }

  async #answer() {
    if (this.#dead) throw this.#dead
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }))
  }

  /** What it answers to that, see child/operated.js. */
  async ask(...words) {
    this.#child.stdin.write(`${JSON.stringify(words)}\n`)
    const answer = await this.#answer()
    if (answer?.failed) throw new Error(`${words}: ${answer.failed}`)
    return answer
  }

  /** Resolves when `count` more are acknowledged; refused with that code. */
  acks(count) {
    return this.#times('ack', count)
  }

  refusals(count, code) {
    return this.#times('refusal', count, (given) => given === code)
  }

  async #times(name, count, wanted = () => true) {
    if (this.#dead) throw this.#dead
    return new Promise((resolve, reject) => {
      let left = count
      const take = (what) => {
        if (wanted(what) && --left === 0) settle(resolve)
      }
      const ended = () => settle(() => reject(this.#dead))
      const settle = (how) => {
        this.off(name, take).off('end', ended)
        how()
      }
      this.on(name, take).on('end', ended)
    })
  }

  /** SIGKILL; resolves when it is gone and all that it has said is read. */
  async kill() {
    if (this.#dead) return
    if (this.#pid) process.kill(this.#pid, 'SIGKILL')
    else this.#child.kill('SIGKILL')
    await this.#ended
  }
}

/** What a file has, opened after its process was killed: { rows: Set of numbers, warnings: text }. */
export async function opened(file) {
  let warnings = ''
  const warned = ({ message }) => {
    if (message.includes(file)) warnings += message
  }
  process.on('warning', warned)
  const db = await Replica.open(file)
  try {
    const isThere = db.status().tables.includes('note')
    const rows = isThere ? await db.all('SELECT id FROM note') : []
    return { rows: new Set(rows.map(({ id }) => id)), warnings }
  } finally {
    await db.close()
    process.off('warning', warned)
  }
}
