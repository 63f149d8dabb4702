// load(): any number of rows, in groups of bounded size, a bounded number of groups under way.

import { ReplicError } from './base/errors.js'
import { rowBytes } from './base/rows.js'

const GROUP_ROWS = 1000
const GROUP_BYTES = 1024 * 1024
const GROUPS_AT_ONCE = 2 // one being committed, one waiting to be

/**
 * Stores the rows of an iterable or async iterable with `store(rows)`, which resolves with a token.
 * `maxBytes`: where groups must end earlier than by GROUP_BYTES. Resolves with the last token, or
 * undefined if there was no row. When anything fails (the iterable, a group, `progress`, `signal`)
 * it rejects after all groups under way have settled, telling how many rows were stored.
 */
export async function load(rows, store, { progress, signal, maxBytes }) {
  const most = Math.min(GROUP_BYTES, maxBytes)
  const underWay = []
  let token
  let stored = 0
  let group = []
  let bytes = 0

  const send = async (full) => {
    token = await store(full)
    stored += full.length
    progress?.({ rows: stored })
  }
  const flush = async () => {
    const sending = send(group)
    sending.catch(() => {}) // seen below, where it is awaited
    underWay.push(sending)
    group = []
    bytes = 0
    if (underWay.length >= GROUPS_AT_ONCE) await underWay.shift()
  }
  const take = (row) => {
    signal?.throwIfAborted()
    group.push(row)
    bytes += rowBytes(row)
    return group.length >= GROUP_ROWS || bytes >= most ? flush() : undefined
  }

  try {
    if (rows[Symbol.asyncIterator]) {
      for await (const row of rows) await take(row)
    } else {
      for (const row of rows) {
        const flushing = take(row)
        if (flushing) await flushing // only then: a promise per row would cost more than the row
      }
    }
    if (group.length > 0) await flush()
    await Promise.all(underWay)
    return token
  } catch (error) {
    await Promise.allSettled(underWay)
    if (signal?.aborted) throw signal.reason
    const code = error instanceof ReplicError ? error.code : 'REPLIC_USAGE'
    const reason = `${error?.message ?? error}`.replace(/^load: /, '')
    const message = `load: ${reason}; ${stored} rows are stored`
    throw new ReplicError(code, message, { cause: error })
  }
}
