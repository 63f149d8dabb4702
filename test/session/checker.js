// Judges what sessions have seen. A history is a list in which the steps of each session stand in its order:
//
//   { session, kind: 'write', rows: [{ id, n }] }      a session's own rows, which nobody else writes: n grows
//   { session, kind: 'write', rows: [{ id, version, base }] }  a row that all write: an own version each,
//                                                      made upon `base`, the last one it had seen (or null)
//   { session, kind: 'maybe', rows }                   a write whose answer did not come
//   { session, kind: 'read', rows }                    one query
//   { session, kind: 'told', rows }                    another session handed on its token, and what it has seen
//
// Rows of pairs (id even and id + 1) are always written together.

/** The violations, as { kind, session, step, text }, and how much was checked, by kind. */
export function check(history, finals) {
  const checker = new Checker()
  for (const step of history) checker.know(step)
  for (const [at, step] of history.entries()) checker.step(step, at)
  checker.convergence(finals)
  return { violations: checker.violations, checked: checker.checked }
}

class Checker {
  violations = []
  checked = {
    readYourWrites: 0,
    monotonicReads: 0,
    writesFollowReads: 0,
    monotonicWrites: 0,
    atomicGroups: 0,
    convergence: 0,
  }
  #bases = new Map() // version -> base
  #versions = [] // { id, version } of writes that were acknowledged
  #sessions = new Map() // session -> Map id -> { n or version, by: what it knows it from }

  know({ kind, rows }) {
    if (kind !== 'write' && kind !== 'maybe') return
    for (const { id, version, base } of rows) {
      if (version === undefined) continue
      this.#bases.set(version, base)
      if (kind === 'write') this.#versions.push({ id, version })
    }
  }

  step({ session, kind, rows }, at) {
    if (!this.#sessions.has(session)) this.#sessions.set(session, new Map())
    const seen = this.#sessions.get(session)
    if (kind === 'read') {
      this.#atomic(session, rows, at)
      for (const [id, known] of seen)
        if (rows.asked.includes(id)) this.#notLess(session, id, known, rows, at)
    }
    if (kind === 'maybe') return
    const by = { write: 'readYourWrites', read: 'monotonicReads', told: 'writesFollowReads' }[kind]
    for (const row of rows) this.#learn(seen, row, by)
  }

  // What is known already, or newer, is not learned from a hand-over; a version only if it is later.
  #learn(seen, { id, n, version }, by) {
    const known = seen.get(id)
    const isOwn = n !== undefined && n !== null
    if (isOwn ? known?.n > n : known && this.#isBefore(version, known.version)) return
    if (known && (isOwn ? known.n === n : known.version === version)) return
    seen.set(id, isOwn ? { n, by } : { version, by })
  }

  #notLess(session, id, known, rows, at) {
    const row = rows.find((one) => one.id === id)
    this.checked[known.by]++
    if (known.n !== undefined) {
      if (row?.n >= known.n) return
      return this.#report(known.by, session, at, `row ${id} has ${row?.n}, after ${known.n}`)
    }
    if (row && !this.#isBefore(row.version, known.version)) return
    this.#report(known.by, session, at, `row ${id} is ${row?.version}, after ${known.version}`)
  }

  #atomic(session, rows, at) {
    for (const { id, n } of rows) {
      if (n === null) continue
      this.checked.atomicGroups++
      const other = rows.find((row) => row.id === otherOf(id))
      if (other?.n !== n) this.#report('atomicGroups', session, at, `${id}: ${n} and ${other?.n}`)
    }
  }

  // Whether `later` was made upon `version`, at some remove.
  #isBefore(version, later) {
    for (let base = this.#bases.get(later); base; base = this.#bases.get(base)) {
      if (base === version) return true
    }
    return false
  }

  /** `finals`: the rows of each node at the end. */
  convergence(finals) {
    const [first, ...others] = finals.map((rows) => JSON.stringify(rows))
    this.checked.convergence += finals.length
    if (others.some((text) => text !== first))
      this.#report('convergence', null, null, 'nodes differ')
    const last = new Map(finals[0].map((row) => [row.id, row]))
    for (const [session, seen] of this.#sessions) {
      for (const [id, { n }] of seen) {
        if (n === undefined) continue
        this.checked.monotonicWrites++
        const end = last.get(id)?.n
        if (!(end >= n))
          this.#report('monotonicWrites', session, null, `row ${id} ends as ${end}, after ${n}`)
      }
    }
    for (const { id, version } of this.#versions) {
      this.checked.writesFollowReads++
      const end = last.get(id)?.version
      if (end && !this.#isBefore(end, version)) continue
      this.#report('writesFollowReads', null, null, `row ${id} ends as ${end}, before ${version}`)
    }
  }

  #report(kind, session, step, text) {
    this.violations.push({ kind, session, step, text })
  }
}

const otherOf = (id) => (id % 2 ? id - 1 : id + 1)
