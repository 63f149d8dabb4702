// What a process does to the file that it has open, past the replica: for tests. Portable to Bun.

import { cpSync, openSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'

const PARTS = ['', '-wal', '-shm', '-replic']

export const DEEDS = {
  readFiles(file) {
    for (const part of PARTS) readFileSync(file + part)
  },

  copyFolder: (file, to) => cpSync(dirname(file), to, { recursive: true }),

  async otherSqlite(file) {
    const { Database } = await import('bun:sqlite')
    const other = new Database(file)
    other.query('SELECT count(*) FROM sqlite_schema').get()
    other.close()
  },

  /** Resolves with the code of what comes of it. */
  async otherCopy(file, url) {
    const { Replica } = await import(url)
    return Replica.open(file).then(
      () => 'opened',
      ({ code }) => code,
    )
  },

  /** Opens files until the system gives no more. */
  useUpDescriptors() {
    try {
      for (;;) openSync('/dev/null')
    } catch ({ code }) {
      return code
    }
  },
}
