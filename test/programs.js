// Programs that tests start. No test runner, so that scripts can import it.

import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { libcOf } from '../lib/base/load.js'

// The program comes with the optional dependency for this platform. The install script of the npm
// package `bun`, where it runs (package.json denies it, which older npm do not know), moves it.
export function bunProgram() {
  const windows = process.platform === 'win32'
  const system = windows ? 'windows' : process.platform
  const arch = process.arch === 'arm64' ? 'aarch64' : process.arch
  const musl = process.platform === 'linux' && libcOf('/proc/self/maps') === 'musl' ? '-musl' : ''
  const program = `@oven/bun-${system}-${arch}${musl}/bin/bun${windows ? '.exe' : ''}`
  const { resolve } = createRequire(import.meta.url)
  try {
    return resolve(program)
  } catch {
    return resolve('bun/bin/bun.exe')
  }
}

/** The environment of a process whose wall clock is 2 s behind; undefined without libfaketime (Debian: faketime). */
export function slowClock() {
  for (const folder of ['/usr/lib', ...folders('/usr/lib')]) {
    if (!folders(folder).includes(join(folder, 'faketime'))) continue
    return {
      LD_PRELOAD: join(folder, 'faketime', 'libfaketimeMT.so.1'),
      FAKETIME: '-2s',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1', // its name before
    }
  }
}

function folders(path) {
  try {
    const entries = readdirSync(path, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(path, name))
  } catch {
    return []
  }
}
