// The threads of the pool that Node and Bun run calls of the system on: occupied, so that nothing else runs there.

import { execFileSync } from 'node:child_process'
import { closeSync, constants, open, openSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { tempDir } from './helpers.js'

// Of the pool at the most: Node's has four, Bun's one for each processor.
const THREADS = Math.max(Number(process.env.UV_THREADPOOL_SIZE ?? 4), availableParallelism())

/** Whether all threads of Bun's pool are in the system's call openat(): it takes its work in no order, Node's does. */
function isBunsPoolBusy() {
  const OPENAT = { x64: '257', arm64: '56' }[process.arch]
  const read = (id, name) => readFileSync(`/proc/self/task/${id}/${name}`, 'utf8')
  try {
    const pool = readdirSync('/proc/self/task').filter((id) =>
      read(id, 'comm').startsWith('Bun Pool'),
    )
    return pool.length > 0 && pool.every((id) => read(id, 'syscall').split(' ')[0] === OPENAT)
  } catch {
    return false // a thread has ended meanwhile
  }
}

/** What `fn` does while all threads of the pool wait for somebody who writes to a pipe, once they have ended what they do. */
export async function withPoolOccupied(fn) {
  const pipe = join(tempDir(), 'pipe')
  execFileSync('mkfifo', [pipe])
  const opened = Promise.all(
    Array.from({ length: THREADS }, () => promisify(open)(pipe, constants.O_RDONLY)),
  )
  while (process.versions.bun && !isBunsPoolBusy()) await turn()
  try {
    return await fn()
  } finally {
    const writer = openSync(pipe, constants.O_RDWR)
    for (const reader of await opened) closeSync(reader)
    closeSync(writer)
  }
}
