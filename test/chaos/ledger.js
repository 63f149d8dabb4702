// What writers have acknowledged, kept by the parent, who is not killed: only ever appended to. And what
// must be true of peers that have converged.

/** Writes are known by (peerId, life, n): which process of a peer's it was, and which of its writes. */
export class Ledger {
  #acked = new Map() // '<peerId>.<life>' -> [n, ...]
  #refused = new Map() // the same
  #last = new Map() // peerId -> the highest sequence acknowledged
  #sequences = new Map() // peerId -> Set of all of them

  ackedCount = 0
  refusedCount = 0

  /** A line of a writer's: '+ <peerId>.<sequence> <n>' or '- <code> <n>'. Returns what it says. */
  record(peerId, life, line) {
    const [, sign, what, n] = /^([+-]) (\S+) (\d+)$/.exec(line) ?? []
    if (!sign) throw new Error(`peer ${peerId} wrote '${line}' where a write was to be recorded`)
    if (sign === '+') this.#ack(peerId, life, what, Number(n))
    else {
      // Its file was renamed in the middle of a commit: when that is put back, it may have the write.
      if (what !== 'REPLIC_FILE_GONE') push(this.#refused, `${peerId}.${life}`, Number(n))
      this.refusedCount++
    }
    return { isAck: sign === '+', code: what }
  }

  #ack(peerId, life, token, n) {
    const [origin, sequence] = token.split('.').map(Number)
    const seen = this.#sequences.get(peerId) ?? new Set()
    this.#sequences.set(peerId, seen)
    if (origin !== peerId || seen.has(sequence)) {
      throw new Error(
        `peer ${peerId} acknowledged ${token}, which is another's or was given before`,
      )
    }
    seen.add(sequence)
    this.#last.set(peerId, Math.max(sequence, this.#last.get(peerId) ?? 0))
    push(this.#acked, `${peerId}.${life}`, n)
    this.ackedCount++
  }

  /** Origin -> the highest sequence that was acknowledged. */
  get vector() {
    return Object.fromEntries(this.#last)
  }

  /**
   * What is wrong with peers that should have converged: a list of sentences. `states` are what the peers
   * tell of themselves (see peer.js, state).
   */
  problems(states) {
    const [first, ...others] = states
    const unequal = (name) =>
      others
        .filter((state) => stable(state[name]) !== stable(first[name]))
        .map(({ peerId }) => `${name} of peers ${first.peerId} and ${peerId} differ`)
    return [
      ...states.flatMap((state) => this.#problemsOf(state)),
      ...unequal('vector'),
      ...unequal('tables'),
    ]
  }

  /** How often an acknowledged write is missing at a peer. */
  lost(states) {
    return states.reduce((sum, { written }) => {
      const here = byName(written)
      const lists = [...this.#acked].map(([name, list]) => missing(list, here.get(name)))
      return sum + lists.reduce((n, list) => n + list.length, 0)
    }, 0)
  }

  #problemsOf({ peerId, vector, written, ...findings }) {
    const problems = []
    const here = byName(written)
    for (const [name, list] of this.#acked) {
      const lost = missing(list, here.get(name))
      if (lost.length > 0) {
        problems.push(`peer ${peerId} lacks ${lost.length} acknowledged writes of ${name}: ${lost}`)
      }
    }
    for (const [name, list] of this.#refused) {
      const kept = list.filter((n) => isWithin(n, here.get(name)))
      if (kept.length > 0) problems.push(`peer ${peerId} has refused writes of ${name}: ${kept}`)
    }
    for (const [origin, sequence] of this.#last) {
      if ((vector[origin] ?? 0) < sequence) {
        problems.push(`peer ${peerId} has ${origin} up to ${vector[origin]}, not ${sequence}`)
      }
    }
    for (const name of ['torn', 'holes', 'cells']) {
      if (findings[name].length > 0) {
        problems.push(`peer ${peerId}: ${name}: ${JSON.stringify(findings[name])}`)
      }
    }
    return problems
  }
}

function push(map, name, n) {
  const list = map.get(name)
  if (list) list.push(n)
  else map.set(name, [n])
}

/** Which writes a peer has (peer.js, state), as <peerId>.<life> -> ranges of n. */
function byName(written) {
  return new Map(
    written.map(({ writer, life, ranges }) => [`${writer}.${life}`, JSON.parse(ranges)]),
  )
}

const missing = (list, ranges) => list.filter((n) => !isWithin(n, ranges))

/** Is n in one of the ascending ranges [from, to]? */
function isWithin(n, ranges = []) {
  let low = 0
  let high = ranges.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (ranges[middle][1] < n) low = middle + 1
    else high = middle
  }
  return low < ranges.length && ranges[low][0] <= n
}

/** As text, with the names of an object in order. */
function stable(value) {
  return JSON.stringify(value, (_, part) =>
    part && typeof part === 'object' && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort())
      : part,
  )
}
