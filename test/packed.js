// The package as users get it: the tarball, and empty projects with nothing but it. No test runner, so
// that scripts can import it.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { libcOf } from '../lib/base/load.js'
import { buildTarget, TARGETS } from '../src/release/build.js'
import { makePackage } from '../src/release/package.js'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** The name of the binary for this machine, as in prebuilds/. */
export const TARGET = `${process.platform}-${process.arch}${
  process.platform === 'linux' && libcOf('/proc/self/maps') === 'musl' ? '-musl' : ''
}`

// Changes whenever a file does that goes into the package, or that says what goes into it.
function stateOfSources() {
  const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const hash = createHash('sha256')
  for (const name of [...files, 'README.md', 'LICENSE', 'package.json', 'package-lock.json']) {
    const isFolder = statSync(join(ROOT, name)).isDirectory()
    const paths = isFolder ? readdirSync(join(ROOT, name), { recursive: true }).sort() : ['']
    for (const path of paths) {
      const { mtimeMs, size } = statSync(join(ROOT, name, path))
      hash.update(`${name} ${path} ${mtimeMs} ${size}\n`)
    }
  }
  return hash.digest('hex').slice(0, 16)
}

// Of earlier states; not of one that another test file may be using now.
function forgetOld(folder) {
  mkdirSync(folder, { recursive: true })
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    if (Date.now() - statSync(path).mtimeMs > 3_600_000) rmSync(path, { recursive: true })
  }
}

/**
 * The path of the tarball, with the binaries for `targets` (by default this machine's) up to date. It is made once for
 * each state of the sources, and installed once beside it, for installInto() to copy: all test files share it.
 */
export async function pack(targets = TARGETS[TARGET] ? [TARGET] : []) {
  await Promise.all(targets.map(buildTarget))
  const folder = join(ROOT, 'build', 'packed')
  const there = join(folder, stateOfSources())
  if (!existsSync(there)) {
    forgetOld(folder)
    const making = `${there}-${process.pid}`
    const made = makePackage(join(making, 'package'))
    rmSync(join(making, 'package'), { recursive: true })
    npmInstall(join(making, 'project'), made)
    try {
      renameSync(making, there)
    } catch {
      rmSync(making, { recursive: true }) // another test file was faster
    }
  }
  return join(
    there,
    readdirSync(there).find((name) => name.endsWith('.tgz')),
  )
}

const npmCli = () => {
  const npm = execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim()
  return execFileSync('readlink', ['-f', npm], { encoding: 'utf8' }).trim()
}

/**
 * An environment without compilers, Python or a network: in PATH there are Node and npm only, and npm
 * takes nothing that is not in the folder `cache`.
 */
export function bareEnvironment(folder, node = execPath) {
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  symlinkSync(node, join(bin, 'node'))
  symlinkSync('/bin/sh', join(bin, 'sh'))
  writeFileSync(join(bin, 'npm'), `#!/bin/sh\nexec '${node}' '${npmCli()}' "$@"\n`, {
    mode: 0o755,
  })
  return {
    PATH: bin,
    HOME: folder,
    npm_config_cache: join(folder, 'cache'),
    npm_config_offline: 'true',
    npm_config_registry: 'http://127.0.0.1:9/', // nobody answers there
  }
}

function emptyProject(folder, fields) {
  mkdirSync(folder, { recursive: true })
  const manifest = { name: 'project', version: '1.0.0', private: true, ...fields }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  return bareEnvironment(folder)
}

/** Makes an empty project in `folder` and has npm install the tarball; the environment to run programs in. */
export function npmInstall(folder, tarball) {
  const env = emptyProject(folder, {})
  const args = ['install', '--no-audit', '--no-fund', '--loglevel=error', tarball]
  execFileSync(join(folder, 'bin', 'npm'), args, { cwd: folder, env, stdio: 'pipe' })
  return env
}

/** The same, with what npm has installed from the tarball of pack(), copied. */
export function installInto(folder, tarball, fields = {}) {
  const env = emptyProject(folder, fields)
  const from = join(dirname(tarball), 'project', 'node_modules')
  cpSync(from, join(folder, 'node_modules'), { recursive: true, verbatimSymlinks: true })
  return env
}

/** Makes a development dependency of ours known in a project, by a link. */
export function lend(folder, name) {
  const from = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
  const to = join(folder, 'node_modules', name)
  mkdirSync(dirname(to), { recursive: true })
  symlinkSync(from, to)
}

/** The code blocks of a page in that language. */
export const blocksOf = (page, language) => {
  const text = readFileSync(join(ROOT, page), 'utf8')
  const pattern = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms')
  return [...text.matchAll(pattern)].map(([, body]) => body)
}

export const sizeOf = (path) => statSync(path).size

/**
 * A project with the tarball installed and our tests beside it: they find lib/ and src/ in the installed package,
 * and all else (vitest, ws, ...) where we have it.
 */
export function layOutTests(folder, tarball) {
  const env = installInto(folder, tarball, { type: 'module' })
  for (const name of ['test', 'types', 'docs', 'examples']) {
    cpSync(join(ROOT, name), join(folder, name), { recursive: true, filter: isOurs })
  }
  for (const name of ['lib', 'src']) {
    symlinkSync(join(folder, 'node_modules', 'replic-sqlite', name), join(folder, name))
  }
  const modules = join(ROOT, 'node_modules')
  for (const name of readdirSync(modules)) {
    const to = join(folder, 'node_modules', name)
    if (name !== '.bin' && !existsSync(to)) symlinkSync(join(modules, name), to)
  }
  return env
}

const isOurs = (path) => !path.includes('node_modules')

/** A program of test/runtimes, or undefined where it is not installed. */
export function runtime(name) {
  const path = join(ROOT, 'test', 'runtimes', 'node_modules', name, 'bin', name.split('-')[0])
  return existsSync(path) ? path : undefined
}

/** Whether a runtime is there; says loudly that it is not, and fails where CI is set. */
export function isThere(name, needs) {
  const missing = needs.filter((each) => !each)
  if (missing.length === 0) return true
  const text = `${name}: install the runtimes (npm ci --force --prefix test/runtimes) and what .ci/run installs`
  if (process.env.CI) throw new Error(text)
  console.warn(`NOT TESTED: ${text}`)
  return false
}
