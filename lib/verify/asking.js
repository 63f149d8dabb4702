// The asking side of verify(): holds a state, finds a state of the other side's with the same vector, and compares the
// two from whole tables down to one row.

import { randomInt } from 'node:crypto'
import { printable, ReplicError } from '../base/errors.js'
import { differing, firstBucket, firstEntry, pairs } from './differences.js'
import { vectorHash, vectorSum } from './digest.js'
import {
  columnOf,
  isBuckets,
  isColumn,
  isDigest,
  isEntry,
  isListOf,
  isRow,
  isText,
  MOST_QUESTION,
  packed,
  plain,
  unpacked,
} from './messages.js'

/** The peer is no witness: it has a jump of its own to compare. */
export const UNSURE = new Error('the peer has a jump of its own to compare')
const GONE = Symbol('the other side has let go of its state')

/** One comparison with one peer. */
export class Asking {
  #send
  #heartbeatMs
  #timeoutMs
  #peerId
  #rowsOnly // differences between schemas, and what follows from them, are none
  #error // why it is over
  #timer
  #beat
  #heard = false // it answers at all
  #busy = false // it has enough to do with others
  #hasLetGo = false // a state was let go of before the end
  #takesLarge = false // an answer is awaited, which may be large
  #behind = false // it lacks something that this one's state has
  #met = false // the vectors were equal
  #holds = false // a state
  #isOver = false // that was let go of
  #id
  #n = 0
  #question // what was asked and not answered
  #waiting // { resolve, reject } of who waits for the answer, or for a while

  constructor(peerId, send, heartbeatMs, timeoutMs, rowsOnly) {
    this.#peerId = peerId
    this.#rowsOnly = rowsOnly
    this.#send = (message) => {
      this.#takesLarge = message.n > 0 // the answer to compare is small
      send(message)
    }
    this.#heartbeatMs = heartbeatMs
    this.#timeoutMs = timeoutMs
    this.#timer = setTimeout(() => this.fail(this.#late()), timeoutMs)
  }

  fail(error) {
    this.#error ??= error
    this.#waiting?.reject(this.#error)
  }

  /** The WAL has grown: another attempt holds a newer state. */
  letGo() {
    if (!this.#holds) return
    this.#isOver = this.#hasLetGo = true
    this.#waiting?.reject(GONE)
  }

  /** Whether a message may be one large answer. */
  takesLarge() {
    const takes = this.#takesLarge
    this.#takesLarge = false
    return takes
  }

  end() {
    clearTimeout(this.#timer)
    clearInterval(this.#beat)
  }

  async run(openSnapshot) {
    for (;;) {
      this.#check()
      const snapshot = await openSnapshot()
      this.#holds = true
      try {
        if (await this.#meets(snapshot)) return await this.#compare(snapshot)
      } catch (error) {
        if (error !== GONE) throw error
      } finally {
        this.#holds = false
        clearInterval(this.#beat)
        if (this.#met) this.#send({ id: this.#id, ask: 'end' })
        await snapshot.close()
        this.#isOver = false
      }
      await this.#pause()
    }
  }

  #late() {
    const why = this.#hasLetGo
      ? 'so much is written that the states to compare had to be let go of: try when less is'
      : this.#met
        ? 'digests are not complete: allow more time'
        : this.#busy
          ? 'the peer is busy with other comparisons, or with what is written: try again later'
          : this.#heard
            ? 'the two vectors never were equal: one of the two is written to all the time, or changes do ' +
              'not arrive; see status().links'
            : 'no answer: is it linked still?'
    const message = `verify: no result for peer ${this.#peerId} within ${this.#timeoutMs} ms; ${why}`
    return new ReplicError('REPLIC_TIMEOUT', message)
  }

  #check() {
    if (this.#error) throw this.#error
    if (this.#isOver) throw GONE
  }

  #wait() {
    this.#check()
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  // Before the next attempt: soon enough to meet a peer that is written to now and then.
  async #pause() {
    const timer = setTimeout(() => this.#waiting.resolve(), this.#heartbeatMs / 10)
    await this.#wait().finally(() => clearTimeout(timer))
  }

  // Whether the other side holds a state with this one's vector too. It is asked until it answers,
  // however long that takes: each attempt would take as long.
  async #meets(snapshot) {
    this.#id = randomInt(2 ** 48 - 1)
    this.#n = 0
    this.#met = false
    this.#behind = false
    const { vector } = snapshot
    const [hash, sum] = [vectorHash(vector), vectorSum(vector)]
    this.#question = { id: this.#id, n: 0, ask: 'compare', vector: hash, sum }
    this.#send(this.#question)
    this.#beat = setInterval(() => this.#onBeat(), this.#heartbeatMs)
    const { equal, busy, unsure } = await this.#wait()
    this.#busy = busy === true
    this.#met = equal === true
    if (this.#met && this.#rowsOnly && unsure === true) throw UNSURE
    return this.#met
  }

  // To wait for a peer that is behind would hold an ever older state: this one may have more by now.
  #onBeat() {
    if (this.#behind && !this.#met) this.#waiting.resolve({ equal: false })
    else this.#send(this.#question ?? { id: this.#id, ask: 'hold' })
  }

  /** A message of the other side's. */
  answered(message) {
    this.#heard = true
    if (!this.#question || message.id !== this.#id || message.n !== this.#question.n) return
    this.#behind = message.waits === true
    if (this.#behind) return // its answer follows
    this.#question = undefined
    if (message.gone === true) this.letGo()
    else this.#waiting.resolve(message)
  }

  // Asks until it is answered; null if the question or the answer is too large to be sent.
  async #ask(question, isAnswer) {
    const asked = { id: this.#id, n: this.#n + 1, ...question }
    if (Buffer.byteLength(JSON.stringify(asked)) > MOST_QUESTION) return null
    this.#n++
    this.#question = asked
    this.#send(this.#question)
    const answer = await this.#wait()
    if (answer.large === true) return null
    if (isAnswer(answer)) return answer
    const text = `verify: peer ${this.#peerId} answers the question for ${question.ask} with something else`
    throw new ReplicError('REPLIC_PROTOCOL', text)
  }

  async #compare(snapshot) {
    const [here, answer] = await Promise.all([
      snapshot.digests(() => this.#check()),
      this.#ask({ ask: 'tables' }, ({ tables }) => isListOf(tables, isDigest)),
    ])
    if (!answer)
      throw new ReplicError('REPLIC_TOO_LARGE', `verify: peer ${this.#peerId} has too many tables`)
    const there = answer.tables.map(([name, shape, rows, digest]) => ({
      name,
      shape,
      rows,
      digest,
    }))
    const rows = here.reduce((sum, table) => sum + table.rows, 0)
    const report = { peerId: this.#peerId, equal: true, tables: here.length, rows }
    for (const [mine, theirs] of pairs(here, there)) {
      if (mine?.shape === theirs?.shape && mine?.digest === theirs?.digest) continue
      if (this.#rowsOnly && mine?.shape !== theirs?.shape) continue
      const { name: table } = mine ?? theirs
      const found = await (mine?.shape === theirs?.shape
        ? this.#findRow(snapshot, table)
        : this.#findColumns(snapshot, mine && table, theirs && table))
      if (this.#rowsOnly && found.difference === 'stuck') continue
      return { ...report, equal: false, table: printable(table), ...found }
    }
    return report
  }

  async #findColumns(snapshot, mine, theirs) {
    const question = { ask: 'columns', table: theirs }
    const answer =
      theirs && (await this.#ask(question, ({ columns }) => isListOf(columns, isColumn)))
    const there = answer ? answer.columns.map(columnOf) : []
    const here = mine ? snapshot.table(mine).columns : []
    const describe = ({ name, type, key }) => {
      return { name, text: `${type}${key ? ` PRIMARY KEY ${key}` : ''}`, hash: `${type} ${key}` }
    }
    const shown = differing(here.map(describe), there.map(describe))
    return {
      difference: 'schema',
      key: null,
      here: mine ? shown.here : null,
      there: theirs ? shown.there : null,
    }
  }

  // What SQLite says where one side has no such row because its schema cannot store it; else null.
  async #whyMissing(snapshot, table, key, here, there) {
    if (!here) return snapshot.stuck(table, key)
    if (there) return null
    const question = { ask: 'stuck', table: table.name, key: key.map(packed) }
    const answer = await this.#ask(question, ({ why }) => why === null || isText(why))
    return answer?.why ?? null
  }

  async #findRow(snapshot, name) {
    const table = snapshot.table(name)
    const unknown = { difference: 'row', key: null, here: null, there: null }
    const [mine, theirs] = await Promise.all([
      snapshot.buckets(table, () => this.#check()),
      this.#ask({ ask: 'buckets', table: name }, ({ buckets }) => isBuckets(buckets)),
    ])
    if (!theirs) return unknown
    const bucket = firstBucket(mine.buckets, Buffer.from(theirs.buckets, 'base64'))
    const [ours, answer] = await Promise.all([
      snapshot.entries(table, bucket),
      this.#ask({ ask: 'entries', table: name, bucket }, ({ entries }) => {
        return entries === null || isListOf(entries, isEntry)
      }),
    ])
    if (!ours || !answer?.entries) return unknown
    const row = firstEntry(ours, answer.entries)
    if (row === undefined) return unknown
    const [here, found] = await Promise.all([
      snapshot.row(table, row),
      this.#ask({ ask: 'row', table: name, row }, (message) => isRow(message.row, table)),
    ])
    const there = found?.row
    const cells = (each) =>
      each?.cells.map(([column, text, hash]) => ({ name: column, text, hash }))
    const shown = differing(cells(here) ?? [], cells(there) ?? [])
    const key = here?.key ?? there?.key.map(unpacked)
    const why = key && (await this.#whyMissing(snapshot, table, key, here, there))
    return {
      difference: why ? 'stuck' : 'row',
      ...(why && { why }),
      key: key
        ? Object.fromEntries(table.keys.map((column, i) => [column.name, plain(key[i])]))
        : null,
      here: here ? shown.here : null,
      there: there ? shown.there : null,
    }
  }
}
