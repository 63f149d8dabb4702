// The tarball, installed into empty projects where there is no compiler, no Python and no network.

import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { execPath } from 'node:process'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { bunProgram, runProcess, startProcess, tempDir } from './helpers.js'
import {
  bareEnvironment,
  blocksOf,
  installInto,
  lend,
  npmInstall,
  pack,
  ROOT,
  runtime,
  sizeOf,
  TARGET,
} from './packed.js'
import { freePort } from './servers.js'

vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 }) // compilers run here

const base = join(tmpdir(), `replic-package-${process.pid}`)
const project = join(base, 'project')
let tarball
let env

beforeAll(async () => {
  mkdirSync(base)
  tarball = await pack()
  env = npmInstall(project, tarball)
  lend(project, 'express')
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

const ended = { code: 0, signal: null, stderr: '' }
const [first, readYourWrite] = blocksOf('README.md', 'js')
const [ddl] = blocksOf('README.md', 'sql')
const [printed] = blocksOf('README.md', 'text')

// The README's line for Express, on the README's tables, in as much of a server as it needs.
const server = `import express from 'express'
import { Replica } from 'replic-sqlite'

const db = await Replica.open('server.db')
await db.migrate([{ up: ${JSON.stringify(ddl)} }])
const app = express()
${readYourWrite}
app.post('/', async (_request, response) => {
  response.end(await db.upsert('myTable', { id: 1, tenantId: 7, name: null }))
})
const server = app.listen(0, '127.0.0.1', async () => {
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const answer = await fetch('http://127.0.0.1:' + port, { method: 'POST' })
  console.log(answer.headers.get('x-replic-token') === (await answer.text()))
  server.close()
  server.closeAllConnections()
  await db.close()
})
`
/** All that the README shows: [name, program, what it prints]. test/40 counts its blocks. */
const EXAMPLES = [
  ['first', first, printed],
  ['server', server, 'true\n'],
]

/** Runs a program of the project's, in files of its own. */
async function runIn(folder, name, source, { command = execPath, args = [] } = {}) {
  const data = tempDir()
  writeFileSync(
    join(folder, name),
    source.replaceAll(/'(\w+\.db)'/g, (_, file) => JSON.stringify(join(data, file))),
  )
  return runProcess(command, [...args, join(folder, name)], { cwd: folder, env })
}

/** A program of ESM as CommonJS. */
const asCommonJs = (source) =>
  `${source.replaceAll(/^import (\{.*?\}|\w+) from ('.*?')$/gm, 'const $1 = require($2)').replace(/^const (?!\{)/m, ';(async () => {\nconst ')}\n})()\n`

// ---- what is in it ----

it('holds the files of src/release/files.txt, and no other', () => {
  const out = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' })
  const packed = out
    .trim()
    .split('\n')
    .map((path) => path.replace('package/', ''))
  // Of the binaries there may be more or fewer here; those of one platform stand for each.
  const named = packed
    .map((path) => path.replace(/^prebuilds\/[^/]+/, 'prebuilds/*'))
    .map((path) => path.replace(/^docs\/[\w-]+\.md$/, 'docs/*.md'))
    .map((path) => path.replace(/^src\/core\/[a-z]+\/\w+\.(c|h)$/, 'src/core/*/*.$1'))
    .map((path) => path.replace(/^src\/(core|napi)\/\w+\.(c|cc|h)$/, 'src/$1/*.$2'))
  const reviewed = readFileSync(join(ROOT, 'src/release/files.txt'), 'utf8').trim().split('\n')
  expect([...new Set(named)].sort()).toEqual(reviewed)
})

it('has no script that npm would run, and nothing to be installed with it', () => {
  const path = join(project, 'node_modules', 'replic-sqlite', 'package.json')
  const manifest = JSON.parse(readFileSync(path))
  for (const field of ['scripts', 'dependencies', 'devDependencies', 'optionalDependencies']) {
    expect(manifest).not.toHaveProperty(field)
  }
  const lock = readFileSync(join(project, 'node_modules', '.package-lock.json'))
  const installed = Object.keys(JSON.parse(lock).packages)
  expect(installed).toEqual(['node_modules/replic-sqlite'])
})

it('holds nothing of the machine it was packed on', () => {
  const folder = join(project, 'node_modules', 'replic-sqlite')
  const found = execFileSync('sh', ['-c', `grep -rlaF '${ROOT.replace(/\/$/, '')}' . || true`], {
    cwd: folder,
    encoding: 'utf8',
  })
  expect(found).toBe('')
})

it('is about as large as docs/packaging.md says', () => {
  const text = readFileSync(join(ROOT, 'docs/packaging.md'), 'utf8')
  const [, each] = /each\s+binary\s+below ([\d.]+) MB/.exec(text)
  const binary = join(project, 'node_modules/replic-sqlite/prebuilds', TARGET, 'replic_sqlite.node')
  expect(sizeOf(binary)).toBeLessThan(Number(each) * 1e6)
})

// ---- how it is used ----

describe.each(EXAMPLES)('README, %s', (name, source, stdout) => {
  it('runs as ESM', async () => {
    expect(await runIn(project, `${name}.mjs`, source)).toEqual({ ...ended, stdout })
  })

  it('runs as CommonJS', async () => {
    const script = asCommonJs(source)
    expect(script).not.toMatch(/^import /m)
    expect(await runIn(project, `${name}.cjs`, script)).toEqual({ ...ended, stdout })
  })

  it('runs on Bun, as ESM, CommonJS and TypeScript', async () => {
    const options = { command: bunProgram() }
    for (const [ending, text] of [
      ['mjs', source],
      ['cjs', asCommonJs(source)],
      ['ts', source],
    ]) {
      const result = await runIn(project, `${name}-bun.${ending}`, text, options)
      expect(result).toMatchObject({ code: 0, stderr: '' })
    }
  })
})

it('is one module for import and require', async () => {
  const source = `const { Replica } = require('replic-sqlite')
    const { connect } = require('replic-sqlite/tcp')
    Promise.all([import('replic-sqlite'), import('replic-sqlite/tcp')]).then(([main, tcp]) =>
      console.log(main.Replica === Replica, tcp.connect === connect))`
  expect(await runIn(project, 'same.cjs', source)).toEqual({ ...ended, stdout: 'true true\n' })
})

// Express brings no types: of it, what the example calls.
const EXPRESS = `declare module 'express' {
  import type { IncomingMessage, Server, ServerResponse } from 'node:http'
  type Handler = (request: IncomingMessage, response: ServerResponse, next: (error?: unknown) => void) => void
  interface Application {
    use(handler: Handler): void
    post(path: string, handler: Handler): void
    listen(port: number, host: string, ready: () => void): Server
  }
  export default function express(): Application
}
`

it('README, as TypeScript, strictly: ESM and CommonJS', async () => {
  const folder = join(base, 'typescript')
  installInto(folder, tarball)
  for (const name of ['@types/node', 'undici-types', 'express']) lend(folder, name)
  const compilerOptions = {
    strict: true,
    target: 'es2022',
    module: 'nodenext',
    moduleResolution: 'nodenext',
    outDir: 'out',
    types: ['node'],
    skipLibCheck: false,
    preserveSymlinks: true,
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }))
  writeFileSync(join(folder, 'express.d.ts'), EXPRESS)
  const data = tempDir()
  for (const [name, source] of EXAMPLES) {
    const body = source.replaceAll(/'(\w+\.db)'/g, (_, file) => JSON.stringify(join(data, file)))
    const main = body.replace(/^const (?!\{)/m, 'async function main() {\nconst ')
    writeFileSync(join(folder, `${name}.mts`), body)
    writeFileSync(join(folder, `${name}.cts`), `${main}\n}\nvoid main()\n`)
  }
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
  const compiled = await runProcess(execPath, [tsc, '-p', folder], { cwd: folder })
  expect(compiled).toEqual({ ...ended, stdout: '' })
  for (const [name, , stdout] of EXAMPLES) {
    for (const ending of ['mjs', 'cjs']) {
      const script = join(folder, 'out', `${name}.${ending}`)
      const result = await runProcess(execPath, [script], { cwd: folder, env })
      // From CommonJS, some versions of Node warn that an ES module is required.
      expect(result).toMatchObject({ code: 0, signal: null, stdout })
    }
  }
})

it('has the command', async () => {
  const command = join(project, 'node_modules', '.bin', 'replic-sqlite')
  const result = await runProcess(command, ['--version'], { cwd: project, env })
  expect(result).toMatchObject({ code: 0, stderr: '' })
})

// ---- where there is no binary ----

it('says what to do where there is none, and that builds one from what the package carries', async () => {
  const folder = join(base, 'source')
  installInto(folder, tarball)
  const root = join(folder, 'node_modules', 'replic-sqlite')
  rmSync(join(root, 'prebuilds'), { recursive: true })
  const source = `import { Replica } from 'replic-sqlite'
    const db = await Replica.open('source.db').catch((error) => error)
    console.log(db.code ?? db.status().state, db.message ?? '')
    await db.close?.()`
  const without = await runIn(folder, 'source.mjs', source)
  expect(without.stdout).toContain('REPLIC_LOAD')
  const [, script] = /^ {2}node "(.*)"$/m.exec(without.stdout)
  expect(script).toBe(join(root, 'src', 'release', 'build.js'))
  // SQLite is not optimized here: what is shown is that it builds.
  const { PATH, ...rest } = process.env
  const quick = { ...rest, PATH: toolsOnly(folder, PATH), CFLAGS: '-O0' }
  const built = await runProcess(execPath, [script], { cwd: folder, env: quick })
  expect(built).toMatchObject({ code: 0, stderr: '' })
  expect(await runIn(folder, 'source.mjs', source)).toMatchObject({ ...ended, stdout: 'open \n' })
})

// A PATH with the compiler and what that calls, and no Python.
function toolsOnly(folder, path) {
  const bin = join(folder, 'tools')
  mkdirSync(bin)
  for (const name of ['cc', 'c++', 'as', 'ld']) {
    const from = execFileSync('sh', ['-c', `command -v ${name}`], {
      encoding: 'utf8',
      env: { PATH: path },
    }).trim()
    symlinkSync(from, join(bin, name))
  }
  return bin
}

it('names the compiler that is missing', async () => {
  const script = join(project, 'node_modules', 'replic-sqlite', 'src', 'release', 'build.js')
  const { code, stderr } = await runProcess(execPath, [script], {
    env: { ...env, CC: 'no-such-cc' },
  })
  expect(code).toBe(1)
  expect(stderr).toContain('no-such-cc cannot be started')
  expect(stderr).toContain('install it, or name another one (CC, CXX)')
})

// ---- bundlers ----

it('is bundled by way of a sub-path, binary and all', async () => {
  const folder = join(base, 'bundled')
  installInto(folder, tarball)
  const source = first.replace("from 'replic-sqlite'", `from 'replic-sqlite/${TARGET}'`)
  expect(source).not.toBe(first)
  writeFileSync(join(folder, 'app.mjs'), source)
  const program = join(folder, 'app')
  const args = ['build', '--compile', join(folder, 'app.mjs'), '--outfile', program]
  const made = await runProcess(bunProgram(), args, { cwd: folder, env: { ...env, TMPDIR: base } })
  expect(made).toMatchObject({ code: 0 })
  const elsewhere = tempDir()
  rmSync(join(folder, 'node_modules'), { recursive: true })
  const result = await runProcess(program, [], {
    cwd: elsewhere,
    env: { PATH: '', TMPDIR: elsewhere },
  })
  expect(result).toMatchObject({ code: 0, stderr: '' })
  expect(readdirSync(elsewhere)).toContain('a.db')
})

it('is the same module by its name and by its sub-path', async () => {
  const source = `import { Replica } from 'replic-sqlite'
    import * as fixed from 'replic-sqlite/${TARGET}'
    console.log(fixed.Replica === Replica, Object.keys(fixed).length > 3)`
  expect(await runIn(project, 'fixed.mjs', source)).toEqual({ ...ended, stdout: 'true true\n' })
  expect(dirname(project)).toBe(base)
})

// ---- deployment ----

/** The instructions of docs/deployment.md's Dockerfile: [name, arguments] each. */
const instructions = () =>
  blocksOf('docs/deployment.md', 'dockerfile')[0]
    .trim()
    .split('\n')
    .map((line) => /^([A-Z]+) (.*)$/.exec(line).slice(1))

/**
 * Does what they say, with `root` for the root of the file system and `context` for the build's folder. Gives what
 * starts the container's process, and the signal that ends it.
 */
function build(root, context) {
  const image = { env: {}, folder: root }
  const steps = {
    FROM(name) {
      const [, version] = /^node:(\d+)-slim$/.exec(name)
      image.env = bareEnvironment(root, runtime(`node-${version}`))
    },
    WORKDIR(path) {
      image.folder = join(root, path)
      mkdirSync(image.folder, { recursive: true })
    },
    COPY(args) {
      const [glob, to] = args.split(' ')
      expect(to).toBe('./')
      const pattern = new RegExp(`^${glob.replaceAll('.', '\\.').replaceAll('*', '.*')}$`)
      const names = readdirSync(context).filter((name) => pattern.test(name))
      expect(names.length).toBeGreaterThan(0)
      for (const name of names) copyFileSync(join(context, name), join(image.folder, name))
    },
    RUN(command) {
      const { folder: cwd, env } = image
      execFileSync('/bin/sh', ['-c', command], { cwd, env, stdio: 'pipe' })
    },
    ENV(settings) {
      for (const setting of settings.split(' ')) {
        const [name, value] = setting.split('=')
        image.env[name] = value.startsWith('/') ? join(root, value) : value
      }
    },
    VOLUME: (path) => mkdirSync(join(root, path)),
    STOPSIGNAL(signal) {
      image.signal = signal
    },
    CMD(list) {
      image.command = JSON.parse(list)
    },
  }
  for (const [name, args] of instructions()) steps[name](args)
  return image
}

it('is deployed by the Dockerfile of docs/deployment.md, run as a script', async () => {
  const [root, context] = ['container', 'context'].map((name) => join(base, name))
  for (const folder of [root, context]) mkdirSync(folder)
  const [source] = blocksOf('docs/deployment.md', 'js')
  expect(source).toMatch(/^\/\/ server\.mjs/)
  writeFileSync(join(context, 'server.mjs'), source)
  const manifest = { private: true, dependencies: { 'replic-sqlite': `file:${tarball}` } }
  writeFileSync(join(context, 'package.json'), JSON.stringify(manifest))
  const npm = join(project, 'bin', 'npm')
  execFileSync(npm, ['install', '--package-lock-only'], { cwd: context, env, stdio: 'pipe' })

  const image = build(root, context)
  const ports = { HTTP_PORT: await freePort(), REPLIC_PORT: await freePort() }
  const url = `http://127.0.0.1:${ports.HTTP_PORT}`
  const start = async () => {
    const [command, ...args] = image.command
    const program = join(image.env.PATH, command)
    const given = { REPLIC_SECRET: 'at least sixteen bytes', ...ports }
    const options = { cwd: image.folder, env: { ...image.env, ...given } }
    const container = startProcess(program, args, options)
    for (let line = ''; line !== 'ready'; line = await container.line()) {
      if (line === null) expect.fail((await container.ended).stderr)
    }
    return container
  }
  const stop = async (container) => {
    container.kill(image.signal)
    const alone = /^nobody else has acknowledged: \{ '\d+': 1 \}\n$/ // as it has no other peer
    expect(await container.ended).toMatchObject({ ...ended, stderr: expect.stringMatching(alone) })
  }
  const peer = async () => {
    const metrics = await (await fetch(`${url}/metrics`)).text()
    return /^replic_replica_info\{.*\} 1$/m.exec(metrics)[0]
  }
  const first = await start()
  await fetch(url, { method: 'POST', body: 'kept' })
  const before = await peer()
  await stop(first)
  const second = await start()
  expect(await (await fetch(url)).json()).toEqual([{ text: 'kept' }])
  expect(await peer()).toBe(before)
  await stop(second)
})

// ---- npx ----

describe('npx replic-sqlite serve', () => {
  const serving = async (shell) => {
    const path = join(tempDir(), 'hub.db')
    const args = ['replic-sqlite', 'serve', path, '--create', '--listen', 'tcp://127.0.0.1:0']
    const npx = startProcess('npx', args, {
      cwd: project,
      detached: true, // a group of its own, as a terminal gives it
      env: { ...process.env, npm_config_offline: 'true', npm_config_script_shell: shell },
    })
    for (let line = ''; !/^peer \d+ serves/.test(line); line = await npx.line()) {
      if (line === null) throw new Error((await npx.ended).stderr)
    }
    return { npx, path }
  }

  /** It ends for `why`, in order; nobody is left who writes to its output, or has its file. */
  const endsFor = async ({ npx, path }, why) => {
    const { stdout } = await npx.ended
    expect(stdout.split('\n').filter((line) => line.endsWith(': closing'))).toEqual([
      `${why}: closing`,
    ])
    for (const left of ['-wal', '-shm']) expect(existsSync(path + left)).toBe(false)
  }

  // dash stays between npm and the program, bash does not.
  it.each([
    ['/bin/dash', 'npx', 'SIGTERM', 'npm has ended'],
    ['/bin/dash', 'npx', 'SIGKILL', 'npm has ended'],
    ['/bin/dash', 'its group', 'SIGINT', 'SIGINT'],
    ['/bin/bash', 'npx', 'SIGINT', 'SIGINT'],
    ['/bin/bash', 'npx', 'SIGKILL', 'npm has ended'],
    ['/bin/bash', 'its group', 'SIGINT', 'SIGINT'],
  ])('by %s: told to %s, %s ends it', async (shell, whom, signal, why) => {
    const served = await serving(shell)
    process.kill(whom === 'npx' ? served.npx.pid : -served.npx.pid, signal)
    await endsFor(served, why)
  })

  it('by dash: SIGINT to npx alone reaches nobody, and SIGTERM after it ends it', async () => {
    const served = await serving('/bin/dash')
    served.npx.kill('SIGINT')
    served.npx.kill('SIGTERM')
    await endsFor(served, 'npm has ended')
  })

  it('goes on when the shell ends from which npx was started', async () => {
    const path = join(tempDir(), 'hub.db')
    const command = `npx replic-sqlite serve '${path}' --create --listen tcp://127.0.0.1:0 & echo $!`
    for (const shell of ['/bin/dash', '/bin/bash']) {
      const child = startProcess('sh', ['-c', command], {
        cwd: project,
        env: { ...process.env, npm_config_offline: 'true', npm_config_script_shell: shell },
      })
      const npx = Number(await child.line())
      const url = (await child.line()).split(' ').at(-1)
      expect(await child.line()).toContain('serves')
      // The shell is gone by now: what it was asked to do was done before the first line.
      const looked = await runProcess('npx', ['replic-sqlite', 'status', url], { cwd: project })
      expect(looked).toMatchObject({ code: 0 })
      process.kill(npx, 'SIGTERM')
      expect((await child.ended).stdout).toContain('closing')
    }
  })
})
