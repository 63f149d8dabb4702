// The package by its own name, as an application gets it.

import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { runProcess } from './helpers.js'

const cwd = fileURLToPath(new URL('..', import.meta.url))
const ended = { code: 0, signal: null, stderr: '' }

it('is imported', async () => {
  const source = `import * as main from 'replic-sqlite'
    import * as tcp from 'replic-sqlite/tcp'
    console.log(Object.keys(main).join(), Object.keys(tcp).join())`
  const result = await runProcess(execPath, ['--input-type=module', '-e', source], { cwd })
  expect(result).toEqual({
    ...ended,
    stdout: 'METRICS_CONTENT_TYPE,ReplicError,Replica,patchesTable connect,listen\n',
  })
})

it('is required: the same classes', async () => {
  const source = `const { Replica, ReplicError } = require('replic-sqlite')
    const { listen } = require('replic-sqlite/tcp')
    import('replic-sqlite').then((main) =>
      console.log(main.Replica === Replica, main.ReplicError === ReplicError, typeof listen))`
  const result = await runProcess(execPath, ['--no-warnings', '-e', source], { cwd })
  expect(result).toEqual({ ...ended, stdout: 'true true function\n' })
})

it('shows nothing else', async () => {
  const source = `for (const path of ['lib/links/links.js', 'lib/base/errors.js']) {
      try { require('replic-sqlite/' + path) } catch (error) { console.log(error.code) }
    }`
  const result = await runProcess(execPath, ['-e', source], { cwd })
  const code = process.versions.bun ? 'MODULE_NOT_FOUND' : 'ERR_PACKAGE_PATH_NOT_EXPORTED'
  expect(result.stdout).toBe(`${code}\n`.repeat(2))
})
