// What npm run bench needs beside the addon, made at its first run: the peers, which bench/package.json lists
// and nobody else installs, and the floor, in C.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = dirname(fileURLToPath(import.meta.url))
const ROOT = join(HERE, '..')
const SQLITE = join(ROOT, 'build/Release/obj.target/sqlite3.a')
const FLOOR = join(ROOT, 'build/bench/floor')

function run(command, args, cwd) {
  const { status } = spawnSync(command, args, { cwd, stdio: 'inherit' })
  if (status !== 0) throw new Error(`bench: ${command} ${args.join(' ')} has failed`)
}

const isOlder = (file, ...sources) =>
  !existsSync(file) || sources.some((source) => statSync(source).mtimeMs > statSync(file).mtimeMs)

/** Installs the peers and compiles the floor where that is due; the first time takes some minutes. */
export function prepare() {
  if (!existsSync(join(HERE, 'node_modules'))) run('npm', ['ci', '--no-audit', '--no-fund'], HERE)
  const source = join(HERE, 'floor.c')
  if (!isOlder(FLOOR, source, SQLITE)) return
  const fromRoot = createRequire(join(ROOT, 'package.json'))
  const headers = join(dirname(fromRoot.resolve('better-sqlite3/package.json')), 'deps/sqlite3')
  mkdirSync(dirname(FLOOR), { recursive: true })
  // The archive is the addon's: the same source, options and compiler flags.
  const flags = ['-O3', '-std=c11', '-D_POSIX_C_SOURCE=200809L', '-I', headers]
  run('cc', [...flags, source, SQLITE, '-lm', '-lpthread', '-ldl', '-o', FLOOR], ROOT)
}
