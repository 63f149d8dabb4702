// Users of vitest: examples/vitest, ten files in parallel in each pool, in a project that has the package
// from the tarball. It must end by itself and leave nothing behind.

import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { runProcess } from './helpers.js'
import { installInto, pack, ROOT } from './packed.js'

vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 })

const base = join(tmpdir(), `replic-vitest-users-${process.pid}`)
const project = join(base, 'project')

beforeAll(async () => {
  mkdirSync(base)
  installInto(project, await pack(), { type: 'module' })
  symlinkSync(join(ROOT, 'node_modules', 'vitest'), join(project, 'node_modules', 'vitest'))
  cpSync(join(ROOT, 'examples', 'vitest'), project, { recursive: true })
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

it.each(['threads', 'forks', 'vmThreads'])('pool %s', async (pool) => {
  const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs')
  const temporary = join(base, pool)
  mkdirSync(temporary)
  const { VITEST, VITEST_POOL_ID, VITEST_WORKER_ID, ...outer } = process.env
  const env = { ...outer, TMPDIR: temporary, NO_COLOR: '1' }
  const args = [vitest, 'run', '--root', project, '--pool', pool]
  const { code, signal, stdout, stderr } = await runProcess(execPath, args, { cwd: project, env })
  expect([code, signal, stderr]).toEqual([0, null, ''])
  expect(stdout).toMatch(/Test Files +10 passed \(10\)/)
  expect(stdout).toMatch(/Tests +40 passed \(40\)/)
  expect(readdirSync(temporary).filter((name) => name.startsWith('replic-'))).toEqual([])
})
