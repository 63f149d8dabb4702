// The same package on Bun, which the npm package `bun` brings.

import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { libcOf } from '../lib/load.js'
import { runProcess, tempDir } from './helpers.js'

// Bun's own install script would put the program in its place; npm does not run install scripts of
// dependencies. So it is taken from the optional dependency for this platform, where it came from.
function bunProgram() {
  const windows = process.platform === 'win32'
  const system = windows ? 'windows' : process.platform
  const arch = process.arch === 'arm64' ? 'aarch64' : process.arch
  const musl = process.platform === 'linux' && libcOf('/proc/self/maps') === 'musl' ? '-musl' : ''
  const program = `@oven/bun-${system}-${arch}${musl}/bin/bun${windows ? '.exe' : ''}`
  return createRequire(import.meta.url).resolve(program)
}

test('opens, migrates, writes, replicates over TCP, refuses, closes and opens again', async () => {
  const smoke = fileURLToPath(new URL('./bun/smoke.js', import.meta.url))
  expect(await runProcess(bunProgram(), [smoke, tempDir()])).toEqual({
    code: 0,
    signal: null,
    stdout: 'as expected\n',
    stderr: '',
  })
})
