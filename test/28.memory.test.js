// What each connection keeps of the file.

import { expect, it } from 'vitest'
import { NOTES, openReplica } from './helpers.js'

const MiB = 1024 * 1024
const SQL = 'PRAGMA cache_size'

// In MiB, of each kind of connection.
async function caches(options) {
  const db = await openReplica(options)
  const size = ({ cache_size }) => -cache_size / 1024
  let writing
  const up = async (tx) => {
    writing = size(await tx.get(SQL))
  }
  await db.migrate([{ up: NOTES }, { name: 'look', up }])
  const readers = await Promise.all(Array.from({ length: 64 }, () => db.get(SQL)))
  const { value: loop } = await db.iterate(SQL).next()
  return {
    writing,
    readers: [...new Set(readers.map(size))],
    loop: size(loop),
    calling: size(db.getSync(SQL)),
  }
}

it('loops and the calling thread keep little, the others what cacheBytes says', async () => {
  expect(await caches({})).toEqual({ writing: 16, readers: [16], loop: 1, calling: 2 })
  const small = await caches({ cacheBytes: MiB, readers: 4 })
  expect(small).toEqual({ writing: 1, readers: [1], loop: 1, calling: 2 })
})
