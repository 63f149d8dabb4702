// The package as users get it: the tarball, and empty projects with nothing but it. No test runner, so
// that scripts can import it.

import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { libcOf } from '../lib/load.js'
import { buildTarget, TARGETS } from '../src/release/build.js'
import { makePackage } from '../src/release/package.js'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** The name of the binary for this machine, as in prebuilds/. */
export const TARGET = `${process.platform}-${process.arch}${
  process.platform === 'linux' && libcOf('/proc/self/maps') === 'musl' ? '-musl' : ''
}`

/** Builds the binary for this machine where it is out of date, and packs; the tarball's path. */
export async function pack(out) {
  if (TARGETS[TARGET]) await buildTarget(TARGET)
  return makePackage(out)
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
  writeFileSync(join(bin, 'npm'), `#!/bin/sh\nexec '${node}' '${npmCli()}' "$@"\n`, { mode: 0o755 })
  return {
    PATH: bin,
    HOME: folder,
    npm_config_cache: join(folder, 'cache'),
    npm_config_offline: 'true',
    npm_config_registry: 'http://127.0.0.1:9/', // nobody answers there
  }
}

/** Makes an empty project in `folder` and installs the tarball; the environment to run programs in. */
export function installInto(folder, tarball, fields = {}, node = execPath) {
  mkdirSync(folder, { recursive: true })
  const env = bareEnvironment(folder, node)
  const manifest = { name: 'project', version: '1.0.0', private: true, ...fields }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  const args = ['install', '--no-audit', '--no-fund', '--loglevel=error', tarball]
  execFileSync(join(folder, 'bin', 'npm'), args, { cwd: folder, env, stdio: 'pipe' })
  return env
}

/** Makes a development dependency of ours known in a project, by a link. */
export function lend(folder, name) {
  const from = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
  const to = join(folder, 'node_modules', name)
  mkdirSync(dirname(to), { recursive: true })
  symlinkSync(from, to)
}

/** The code blocks of the README in that language. */
export const readmeBlocks = (language) => {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const pattern = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms')
  return [...text.matchAll(pattern)].map(([, body]) => body)
}

export const sizeOf = (path) => statSync(path).size

/**
 * A project with the tarball installed and our tests beside it: they find lib/ in the installed package, and
 * all else (vitest, ws, ...) where we have it.
 */
export function layOutTests(folder, tarball) {
  const env = installInto(folder, tarball, { type: 'module' })
  for (const name of ['test', 'types', 'docs', 'examples']) {
    cpSync(join(ROOT, name), join(folder, name), { recursive: true, filter: isOurs })
  }
  symlinkSync(join(folder, 'node_modules', 'replic-sqlite', 'lib'), join(folder, 'lib'))
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
