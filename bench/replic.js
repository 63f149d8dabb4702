// replic-sqlite as the benchmarks use it.

import { Replica } from '../lib/index.js'
import { COUNT, checkRows, PATCHES, TABLE } from './data.js'

/** Opens a file with the replicated table. `synchronous`: 'FULL' or 'NORMAL'; `peerId`: undefined for any. */
export async function openReplic(path, synchronous, peerId) {
  const db = await Replica.open(path, { durability: synchronous.toLowerCase(), peerId })
  await db.migrate([{ up: TABLE + PATCHES }])
  return db
}

/** Closes it. Throws if it does not hold `rows` rows. */
export async function closeReplic(db, rows) {
  checkRows(await db.get(COUNT), rows)
  await db.close()
}
