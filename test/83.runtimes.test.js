// The package from the tarball on other versions of Node and on Bun: the suites of the API, of links, and of how a
// process ends, all of their tests on each. The test runner is ours, or Bun's; the package is the installed one.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { bunProgram, runProcess, tempDir } from './helpers.js'
import { isThere, layOutTests, pack, ROOT, runtime } from './packed.js'

vi.setConfig({ testTimeout: 900_000, hookTimeout: 600_000 })

/** What of `1x` (the API, how processes end), `2x` (links) and `6x` (transports) does not run here, and why. */
const NOT_HERE = {
  '60.tcp': 'the contract takes minutes; it runs on Bun in 91, and over TCP 16 is here',
  '61.websocket': 'as 60',
  '62.http': 'as 60; bun/http.js is here',
  '63.contract': 'as 60',
  '63.udp': 'as 60',
  '64.bus': 'as 60',
  '64.contract': 'as 60',
  '65.mixed': 'as 60',
  '66.tls': 'as 60',
  '67.examples': 'examples are run from a clone',
  '67.pages': 'the servers are those of this Node; Bun’s are asked in test/bun/websocket.js',
  '68.strangers': 'it is judged by memory, which other versions of V8 count otherwise',
  '69.fuzz': 'as 68',
}
/** Tests of these suites that cannot run on Bun, and why, by their name as nameOf() makes it. */
const NOT_ON_BUN = {
  // It keeps the threads of libuv's pool, which Bun has not.
  '24.checkpoint: calls go on, and what has come in waits > while a checkpoint takes its time, at the bound':
    'the pool',
}

const ALL = readdirSync(join(ROOT, 'test'))
  .filter((name) => /^[126]\d\..*\.test\.js$/.test(name))
  .map((name) => name.replace('.test.js', ''))
const SUITES = ALL.filter((name) => !(name in NOT_HERE))
const NODES = ['22', '24', '26'].filter((version) =>
  isThere(`Node ${version}`, [runtime(`node-${version}`)]),
)
const base = join(tmpdir(), `replic-runtimes-${process.pid}`)
const project = join(base, 'project')
let all
// What a disk takes to flush is not what is looked at here, and most of the time.
const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'replic-'))

beforeAll(async () => {
  mkdirSync(base)
  layOutTests(project, await pack())
  all = allNames()
})
afterAll(() => {
  for (const folder of [base, scratch]) rmSync(folder, { recursive: true, force: true })
})

// A test runner in a test runner: the inner one shall not take itself for a part of the outer one.
function environment() {
  const names = Object.keys(process.env).filter(
    (name) => !/^(VITEST|VITE_|TEST$|NODE_ENV$|NODE_OPTIONS$)/.test(name),
  )
  const outer = Object.fromEntries(names.map((name) => [name, process.env[name]]))
  return { ...outer, TMPDIR: scratch, REPLIC_RUNTIME: 'own' }
}

// The runners do not name blocks within blocks in the same order.
const nameOf = (path, titles) =>
  `${path.match(/([^/]+)\.test\.js$/)[1]}: ${titles.split(' > ').sort().join(' > ')}`

const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs')
const files = SUITES.map((name) => `test/${name}.test.js`)

/** The names of all tests of the suites, none of which is run. */
function allNames() {
  const report = join(base, 'list.json')
  const args = [vitest, 'list', '--root', project, `--json=${report}`, ...files]
  execFileSync(execPath, args, { cwd: project, env: environment() })
  return JSON.parse(readFileSync(report, 'utf8')).map(({ name, file }) => nameOf(file, name))
}

/** Runs the suites in vitest on that Node; the names of all tests, which have passed. */
async function runOnNode(node, report) {
  const output = ['--reporter=json', `--outputFile=${report}`, '--reporter=dot'] // dot: what failed, and why
  const args = [vitest, 'run', '--root', project, '--testTimeout=300000', ...output, ...files]
  const options = { cwd: project, env: { ...environment(), NO_COLOR: '1' } }
  const { code, stdout, stderr } = await runProcess(node, args, options)
  expect([code, code === 0 ? '' : stdout + stderr]).toEqual([0, ''])
  return JSON.parse(readFileSync(report, 'utf8')).testResults.flatMap(
    ({ name: path, assertionResults }) =>
      assertionResults
        .filter(({ status }) => status === 'passed')
        .map(({ ancestorTitles, title }) => nameOf(path, [...ancestorTitles, title].join(' > '))),
  )
}

it('runs each suite, or says why not', () => {
  expect(Object.keys(NOT_HERE).filter((name) => !ALL.includes(name))).toEqual([])
  for (const name of ['11.usage', '16.tcp', '18.exit', '20.link']) expect(SUITES).toContain(name)
  expect(Object.keys(NOT_ON_BUN).filter((name) => !all.includes(name))).toEqual([])
  expect(all.length).toBeGreaterThan(800)
})

it.each(NODES)('API, links and exit on Node %s', async (version) => {
  const node = runtime(`node-${version}`)
  expect((await runProcess(node, ['--version'])).stdout).toMatch(new RegExp(`^v${version}\\.`))
  const names = await runOnNode(node, join(base, `${version}.json`))
  expect(names.sort()).toEqual([...all].sort())
})

const unescaped = (text) => text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name) => ENTITIES[name])
const ENTITIES = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }

/** Runs the suites in Bun's own runner; the names of all tests, which have passed. */
async function runOnBun(bun, report) {
  const output = ['--reporter=junit', `--reporter-outfile=${report}`]
  const args = ['test', '--timeout', '300000', ...output, ...files.map((name) => `./${name}`)]
  const options = { cwd: project, env: environment() }
  const { code, stdout, stderr } = await runProcess(bun, args, options)
  const lines = `${stdout}${stderr}`.split('\n').filter((line) => !line.startsWith('(pass)'))
  expect([code, code === 0 ? '' : lines.join('\n')]).toEqual([0, ''])
  const text = readFileSync(report, 'utf8')
  const cases = text.matchAll(
    /<testcase name="(.*?)" classname="(.*?)" .*? file="(.*?)"[^>]*?(\/?)>/g,
  )
  return [...cases] // one that was skipped, or has failed, has something in it
    .filter(([, , , , isEmpty]) => isEmpty)
    .map(([, title, titles, path]) =>
      nameOf(path, [titles, title].filter(Boolean).map(unescaped).join(' > ')),
    )
}

describe('on Bun', () => {
  it('API, links and exit', async () => {
    const names = await runOnBun(bunProgram(), join(base, 'bun.xml'))
    expect(names.sort()).toEqual(all.filter((name) => !(name in NOT_ON_BUN)).sort())
  })

  it.each(['smoke.js', 'http.js'])('%s', async (name) => {
    const program = join(project, 'test', 'bun', name)
    const result = await runProcess(bunProgram(), [program, tempDir()], { cwd: project })
    expect(result).toMatchObject({ code: 0, stderr: '' })
  })
})
