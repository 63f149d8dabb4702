// Where a database file must not lie: SQLite's WAL needs shared memory and locks that hold, and a file system that
// other machines serve has neither for sure. It works for a while, and then a commit is lost; so it is said at once.

import { statfsSync } from 'node:fs'

const NETWORK = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB'],
  [0x5346414f, 'AFS'],
])

/** What is wrong with the place of a file, as a sentence; undefined if nothing is, or it cannot be known. */
export function placeWarning(path, statfs = statfsSync) {
  try {
    const name = NETWORK.get(Number(statfs(path).type))
    if (!name) return undefined
    return (
      `${path} lies on a network file system (${name}), where SQLite's locks and shared memory cannot be relied on: ` +
      'use a local disk, and let replication carry the data'
    )
  } catch {
    return undefined
  }
}
