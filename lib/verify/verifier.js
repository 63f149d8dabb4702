// verify(): are the replicated tables of a linked peer the same as here? Two peers with equal vectors
// must have equal tables, so each side holds a state of its file whose vector is the other's, and
// sends digests of it; where they differ, ever smaller parts are compared, down to one row. The states
// stay held until it is done, so all that is compared belongs to one vector, whatever is written
// meanwhile. docs/protocol.md, "Verify", has the messages. Any of them may be lost.
//
//   asks    holds a state ── compare(vector) ──> holds one with that vector, or says no
//           tables?, columns?, buckets?, entries?, row? ──> <── the answer     answers

import { randomInt } from 'node:crypto'
import { printable, ReplicError } from '../base/errors.js'
import { BUCKETS, lower, Snapshot, vectorHash, vectorSum } from './digest.js'

const MOST_SESSIONS = 4 // peers that are answered at a time: each holds a connection and a WAL
const MOST_STEPS = 8 // questions of one session; the longest way to a row takes six
const SESSION_MS = 600_000 // no peer makes this one hold a state for longer
const MOST_WAL = 32 * 1024 * 1024 // bytes, until which a state is held: its bound where nobody holds one
const MOST_QUESTION = 64 * 1024 // bytes
const MOST_ANSWER = 3 * 1024 * 1024 // characters; a message is at most 4 MiB
const HASH = /^[0-9a-f]{16}$/
const VECTOR_HASH = /^[0-9a-f]{64}$/

/** The verifying of one replica: its own questions, and the answers to other peers'. */
export class Verifier {
  #native
  #links
  #file
  #options
  #asking = new Map() // peerId -> Asking
  #sessions = new Map() // peerId -> Session
  #resting = new Map() // peerId -> when its next comparison may begin
  #turn = Promise.resolve()
  #stopped

  /**
   * Of the file: `vector()` is what is applied, as a Map; `walBytes()` what is in its WAL. `options` are those of
   * Replica.open().
   */
  constructor(native, links, file, options) {
    this.#native = native
    this.#links = links
    this.#file = file
    this.#options = options
  }

  /** Compares with the peers one after another; resolves with a report for each. */
  verify(peerIds, timeoutMs) {
    const result = this.#turn.then(async () => {
      const reports = []
      for (const peerId of peerIds) reports.push(await this.#ask(peerId, timeoutMs))
      return reports
    })
    this.#turn = result.catch(() => {})
    return result
  }

  /** Whether the tables that both have with the same columns have the same rows; rows that one cannot store aside. */
  async hasEqualRows(peerId, timeoutMs) {
    const result = this.#turn.then(() => this.#ask(peerId, timeoutMs, true))
    this.#turn = result.catch(() => {})
    return (await result).equal
  }

  async #ask(peerId, timeoutMs, rowsOnly = false) {
    if (this.#stopped) throw this.#stopped
    const send = (message) => this.#send(peerId, message)
    const asking = new Asking(peerId, send, this.#options.heartbeatMs, timeoutMs, rowsOnly)
    this.#asking.set(peerId, asking)
    try {
      return await asking.run(() => Snapshot.open(this.#native))
    } finally {
      asking.end()
      this.#asking.delete(peerId)
    }
  }

  /** What another peer's verify() has sent. Whatever is not understood is ignored. */
  message(peerId, bytes) {
    const asking = this.#asking.get(peerId)
    if (this.#stopped || (bytes.length > MOST_QUESTION && !asking?.takesLarge())) return
    const message = parse(bytes)
    if (!message) return
    if (message.re) asking?.answered(message)
    else if (message.ask === 'compare') this.#begin(peerId, message)
    else this.#continue(peerId, message)
  }

  /** The vector has advanced. */
  advanced() {
    for (const session of this.#sessions.values()) if (session.waits) this.#meet(session)
    if (this.#asking.size + this.#sessions.size > 0 && this.#isCrowded) this.#letGo()
  }

  // Nothing of the WAL can go into the file, beyond the oldest state that somebody holds.
  get #isCrowded() {
    return this.#file.walBytes() > MOST_WAL
  }

  #letGo() {
    for (const asking of this.#asking.values()) asking.letGo()
    for (const session of this.#sessions.values()) if (session.holds) session.end()
  }

  /** Ends all; calls under way reject with `error`. */
  stop(error) {
    this.#stopped = error
    for (const asking of this.#asking.values()) asking.fail(error)
    for (const session of this.#sessions.values()) session.end()
  }

  #send(peerId, message) {
    this.#links.message(peerId, Buffer.from(JSON.stringify(message)))
  }

  // ---- answering ----

  // A peer may ask for ever, but not have this one hold a state, or compute, all the time: one session at
  // a time, and after one a rest as long as that has held one.
  #begin(peerId, { id, vector, sum }) {
    const earlier = this.#sessions.get(peerId)
    if (earlier?.id === id) return earlier.again(0)
    earlier?.end() // at once, unless it computes
    if (!isVectorHash(vector) || !isCount(sum)) return
    const rests = performance.now() < (this.#resting.get(peerId) ?? 0)
    const isFull = this.#sessions.has(peerId) || this.#sessions.size >= MOST_SESSIONS
    if (rests || isFull || this.#isCrowded) {
      return this.#send(peerId, { re: 1, id, n: 0, equal: false, busy: true })
    }
    this.#resting.delete(peerId)
    const session = new Session(
      peerId,
      id,
      { vector, sum },
      {
        send: (message) => this.#send(peerId, message),
        idleMs: this.#options.linkTimeoutMs,
        onEnd: () => {
          this.#sessions.delete(peerId)
          const { heldMs } = session
          if (heldMs > 0) this.#resting.set(peerId, performance.now() + heldMs)
        },
      },
    )
    this.#sessions.set(peerId, session)
    this.#meet(session)
  }

  // Holds a state if this peer is where the other one is; waits if it may come there.
  #meet(session) {
    const mine = vectorSum(this.#file.vector())
    if (mine < session.sum) session.wait()
    else if (mine > session.sum) session.refuse()
    else session.hold(() => Snapshot.open(this.#native))
  }

  #continue(peerId, { id, n, ask, ...question }) {
    const session = this.#sessions.get(peerId)
    if (session?.id === id) session.asked(n, ask, question)
    else if (ask !== 'end' && ask !== 'hold') this.#send(peerId, { re: 1, id, n, gone: true })
  }
}

/** One peer that compares itself with this one. */
class Session {
  #send
  #onEnd
  #idle
  #limit
  #snapshot
  #heldAt
  #busy = false
  #ended = false
  #last // { n, message }: an answer may be lost, and is asked for again

  constructor(peerId, id, { vector, sum }, { send, idleMs, onEnd }) {
    this.peerId = peerId
    this.id = id
    this.vector = vector // its hash
    this.sum = sum // how much it has
    this.waits = false // for this peer's vector to become the other's
    this.#send = send
    this.#onEnd = onEnd
    this.#idle = setTimeout(() => this.end(), idleMs).unref()
    this.#limit = setTimeout(() => this.end(), SESSION_MS).unref()
  }

  wait() {
    if (!this.waits) this.#sayWaits()
    this.waits = true
  }

  #sayWaits() {
    this.#send({ re: 1, id: this.id, n: 0, waits: true })
  }

  refuse() {
    this.#send({ re: 1, id: this.id, n: 0, equal: false })
    this.end()
  }

  get holds() {
    return this.#heldAt !== undefined
  }

  /** For how long it has held a state, in ms. */
  get heldMs() {
    return this.holds ? performance.now() - this.#heldAt : 0
  }

  async hold(openSnapshot) {
    this.waits = false
    this.#heldAt = performance.now()
    const snapshot = await openSnapshot().catch(() => null) // asked again, it may succeed
    const met = snapshot && vectorHash(snapshot.vector) === this.vector
    if (!met || this.#ended) await snapshot?.close()
    if (this.#ended) return
    if (!snapshot) return this.end()
    if (!met) return this.refuse()
    this.#snapshot = snapshot
    this.#answer(0, { equal: true })
  }

  #answer(n, content) {
    this.#last = { n, message: { re: 1, id: this.id, n, ...content } }
    this.again(n)
  }

  /** Sends the answer n once more, if that is the last one. */
  again(n) {
    this.#idle.refresh()
    if (this.waits) this.#sayWaits()
    else if (this.#last?.n === n) this.#send(this.#last.message)
  }

  async asked(n, ask, question) {
    this.#idle.refresh()
    if (ask === 'end') return this.end()
    if (ask === 'hold' || this.#busy || !this.#last) return
    if (n !== this.#last.n + 1 || n > MOST_STEPS) return this.again(n)
    this.#busy = true
    const answer = await this.#find(ask, question).catch(() => null)
    this.#busy = false
    if (this.#ended) return this.#onEnd()
    if (!answer) return this.end() // closing, or something is wrong with the file: the other times out
    const fits = JSON.stringify(answer).length <= MOST_ANSWER
    this.#answer(n, fits ? answer : { large: true })
  }

  async #find(ask, { table: name, bucket, row, key }) {
    const snapshot = this.#snapshot
    if (ask === 'tables') {
      const digests = await snapshot.digests(() => this.#check())
      return { tables: digests.map((each) => [each.name, each.shape, each.rows, each.digest]) }
    }
    const table = typeof name === 'string' ? snapshot.table(name) : undefined
    if (!table) return null
    if (ask === 'columns') return { columns: table.columns.map((c) => [c.name, c.type, c.key]) }
    if (ask === 'buckets') {
      const { buckets } = await snapshot.buckets(table, () => this.#check())
      return { buckets: buckets.toString('base64') }
    }
    if (ask === 'entries' && Number.isInteger(bucket) && bucket >= 0 && bucket < BUCKETS) {
      return { entries: await snapshot.entries(table, bucket) }
    }
    if (ask === 'stuck' && isKey(key, table)) {
      return { why: await snapshot.stuck(table, key.map(unpacked)) }
    }
    if (ask !== 'row' || !isHash(row)) return null
    const found = await snapshot.row(table, row)
    return { row: found && { key: found.key.map(packed), cells: found.cells } }
  }

  #check() {
    if (this.#ended) throw new Error('the session has ended')
  }

  end() {
    if (this.#ended) return
    this.#ended = true
    this.waits = false
    clearTimeout(this.#idle)
    clearTimeout(this.#limit)
    this.#snapshot?.close().catch(() => {})
    if (!this.#busy) this.#onEnd()
  }
}

/** One comparison with one peer. */
class Asking {
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
    const { equal, busy } = await this.#wait()
    this.#busy = busy === true
    this.#met = equal === true
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

const GONE = Symbol('the other side has let go of its state')

// ---- comparing ----

/** [mine, theirs] for every name that either list has, in order. */
function pairs(here, there) {
  const byName = (list) => new Map(list.map((each) => [lower(each.name), each]))
  const [mine, theirs] = [byName(here), byName(there)]
  const names = [...new Set([...mine.keys(), ...theirs.keys()])].sort()
  return names.map((name) => [mine.get(name), theirs.get(name)])
}

/** What of two lists of { name, text, hash } differs: { here, there }, each name -> text. */
function differing(mine, theirs) {
  const here = {}
  const there = {}
  for (const [a, b] of pairs(mine, theirs)) {
    if (a?.hash === b?.hash) continue
    if (a) here[a.name] = a.text
    if (b) there[b.name] = b.text
  }
  return { here, there }
}

function firstBucket(mine, theirs) {
  for (let i = 0; i < BUCKETS; i++) {
    const [from, to] = [8 * i, 8 * i + 8]
    if (!mine.subarray(from, to).equals(theirs.subarray(from, to))) return i
  }
  return 0
}

/** The first key's hash whose row differs or is missing; undefined if there is none. */
function firstEntry(mine, theirs) {
  const [a, b] = [new Map(mine), new Map(theirs)]
  return [...new Set([...a.keys(), ...b.keys()])].sort().find((key) => a.get(key) !== b.get(key))
}

// ---- messages: what comes from another peer may be anything ----

function parse(bytes) {
  try {
    const message = JSON.parse(Buffer.from(bytes).toString())
    return Number.isSafeInteger(message?.id) && Number.isSafeInteger(message.n ?? 0)
      ? message
      : null
  } catch {
    return null
  }
}

const isListOf = (list, isItem) => Array.isArray(list) && list.every(isItem)
const isText = (value) => typeof value === 'string'
const isCount = (value) => Number.isSafeInteger(value) && value >= 0
const columnOf = ([name, type, key]) => ({ name: printable(name), type: printable(type), key })
const isHash = (value) => isText(value) && HASH.test(value)
const isVectorHash = (value) => isText(value) && VECTOR_HASH.test(value)
/** Whether an item is an array of as many as there are checks, which its parts pass. */
const tuple =
  (...checks) =>
  (item) =>
    Array.isArray(item) &&
    item.length === checks.length &&
    checks.every((accepts, i) => accepts(item[i]))
const isDigest = tuple(isText, isText, isCount, isText)
const isColumn = tuple(isText, isText, isCount)
const isEntry = tuple(isHash, isHash)
const isCell = tuple(isText, isText, isText)
const isKeyValue = tuple((type) => isText(type) && Object.hasOwn(UNPACK, type), isText)
const isBuckets = (text) => isText(text) && Buffer.from(text, 'base64').length === 8 * BUCKETS
const isKey = (key, { keys }) => isListOf(key, isKeyValue) && key.length === keys.length
const isRow = (row, table) =>
  row === null || (isListOf(row?.cells, isCell) && isKey(row.key, table))

/** A value of a key as [type, text]. */
function packed(value) {
  if (value === null) return ['null', '']
  if (typeof value === 'bigint') return ['integer', `${value}`]
  if (typeof value === 'number') return ['real', `${value}`]
  return typeof value === 'string' ? ['text', value] : ['blob', Buffer.from(value).toString('hex')]
}

const UNPACK = {
  null: () => null,
  integer: (text) => (/^-?[0-9]{1,19}$/.test(text) ? BigInt(text) : null),
  real: Number,
  text: (text) => text,
  blob: (text) => new Uint8Array(Buffer.from(text, 'hex')),
}
const unpacked = ([type, text]) => UNPACK[type](text)

/** An integer as a number where that holds it exactly. */
function plain(value) {
  const number = typeof value === 'bigint' ? Number(value) : value
  return typeof value !== 'bigint' || Number.isSafeInteger(number) ? number : value
}
