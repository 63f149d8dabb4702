// The package from the tarball on other versions of Node and on Bun: the suites of the API, of links over
// TCP and WebSocket, and of how a process ends. The test runner is ours; the package is the installed one.

import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { bunProgram, runProcess, tempDir } from './helpers.js'
import { isThere, layOutTests, pack, ROOT, runtime } from './packed.js'

vi.setConfig({ testTimeout: 900_000, hookTimeout: 600_000 })

const SUITES = ['11.usage', '13.states', '16.tcp', '18.exit', '21.module']
const NODES = ['22', '24', '26'].filter((version) =>
  isThere(`Node ${version}`, [runtime(`node-${version}`)]),
)
const base = join(tmpdir(), `replic-runtimes-${process.pid}`)
const project = join(base, 'project')

beforeAll(async () => {
  mkdirSync(base)
  layOutTests(project, await pack(join(base, 'package')))
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

// A test runner in a test runner: the inner one shall not take itself for a part of the outer one.
function outerEnvironment() {
  const names = Object.keys(process.env).filter(
    (name) => !/^(VITEST|VITE_|TEST$|NODE_ENV$|NODE_OPTIONS$)/.test(name),
  )
  return Object.fromEntries(names.map((name) => [name, process.env[name]]))
}

it.each(NODES)('API, transport and exit on Node %s', async (version) => {
  const node = runtime(`node-${version}`)
  expect((await runProcess(node, ['--version'])).stdout).toMatch(new RegExp(`^v${version}\\.`))
  const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs')
  const report = join(base, `${version}.json`)
  const files = SUITES.map((name) => `test/${name}.test.js`)
  const args = [
    vitest,
    'run',
    '--root',
    project,
    ...files,
    '--reporter=json',
    `--outputFile=${report}`,
  ]
  const { code, stdout, stderr } = await runProcess(node, args, {
    cwd: project,
    env: outerEnvironment(),
  })
  expect([code, code === 0 ? '' : stdout + stderr]).toEqual([0, ''])
  const { numPassedTests, numTotalTests, testResults } = JSON.parse(readFileSync(report, 'utf8'))
  expect(testResults.length).toBe(SUITES.length)
  expect(numPassedTests).toBe(numTotalTests)
  expect(numPassedTests).toBeGreaterThan(300)
})

// What ends on Bun is among 18.exit, which runs each of its programs on both.
it('API and transport on Bun', async () => {
  for (const name of ['smoke.js', 'http.js']) {
    const program = join(project, 'test', 'bun', name)
    const result = await runProcess(bunProgram(), [program, tempDir()], { cwd: project })
    expect(result, name).toMatchObject({ code: 0, stderr: '' })
  }
})
