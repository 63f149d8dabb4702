// The same package on Bun, which the npm package `bun` brings.

import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { bunProgram, runProcess, tempDir } from './helpers.js'

test('opens, migrates, writes, replicates over TCP, refuses, closes and opens again', async () => {
  const smoke = fileURLToPath(new URL('./bun/smoke.js', import.meta.url))
  expect(await runProcess(bunProgram(), [smoke, tempDir()])).toEqual({
    code: 0,
    signal: null,
    stdout: 'as expected\n',
    stderr: '',
  })
})
