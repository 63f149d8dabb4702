// After all tests: this process has no file of a replica open any more. (With the pool `threads` the
// tests have run in it.)

import { readdirSync, readlinkSync } from 'node:fs'

export function teardown() {
  if (process.platform !== 'linux') return
  const open = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return [] // the one that has read the folder
    }
  })
  const left = open.filter((path) => path.includes('replic-vitest-'))
  if (left.length > 0) throw new Error(`files are open still: ${left.join(', ')}`)
}
