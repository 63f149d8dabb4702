// Finds and loads the native addon. Nothing is built or fetched here: package managers no longer
// run install scripts, so a published package carries a binary for each platform (prebuilds/). Who
// has built one (a clone, or src/release/build.js in an installed package) gets that one.

import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ReplicError } from './errors.js'

const FILE = 'replic_sqlite.node'
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const require = createRequire(import.meta.url)

// musl's loader and its C library are one file, by either name; glibc's library is libc.so.6.
const MUSL = /\/(ld-musl-[^/]*|libc\.so)$/m

/**
 * The C library of a Linux process, 'glibc' or 'musl': the one whose dynamic loader is mapped into
 * it. No file at a fixed place would tell: both may be installed.
 * @param {string} maps path of the process's memory map; unreadable means 'glibc'
 */
export function libcOf(maps) {
  try {
    return MUSL.test(readFileSync(maps, 'latin1')) ? 'musl' : 'glibc'
  } catch {
    return 'glibc'
  }
}

/**
 * Loads the addon: from `build/Release/`, else from `prebuilds/<platform>-<arch>[-musl]/`.
 * @param {string} [root] the package's folder
 * @returns {object} the addon's exports
 * @throws {ReplicError} REPLIC_LOAD: names the places, what is wrong with each, and the remedy
 */
export function load(root = ROOT) {
  const libc = process.platform === 'linux' ? libcOf('/proc/self/maps') : undefined
  const target = `${process.platform}-${process.arch}${libc === 'musl' ? '-musl' : ''}`
  const places = [join(root, 'build', 'Release', FILE), join(root, 'prebuilds', target, FILE)]
  const reasons = []
  let cause
  for (const place of places) {
    if (!existsSync(place)) {
      reasons.push(`${place}: not there`)
      continue
    }
    try {
      return require(place)
    } catch (error) {
      cause ??= error
      reasons.push(`${place}: ${error.message}`)
    }
  }
  const { bun, node } = process.versions
  throw new ReplicError(
    'REPLIC_LOAD',
    `no native addon for ${target}${libc ? ` (${libc})` : ''} on ` +
      `${bun ? `Bun ${bun}` : `Node.js ${node}`}. Looked at:\n  ${reasons.join('\n  ')}\n` +
      'Build it from source (with a compiler for C11 and C++17, named cc and c++ or by CC and CXX):\n' +
      `  node "${join(root, 'src', 'release', 'build.js')}"`,
    cause && { cause },
  )
}

let loaded

/** The addon, loaded once, which throws ReplicErrors. */
export function addon() {
  return loaded ?? use(load())
}

/** Takes this addon, where none is loaded yet: for the sub-paths that name their file (lib/static). */
export function use(found) {
  if (loaded) return loaded
  found.setErrorClass(ReplicError)
  found.setPulse(() => {})
  loaded = found
  return loaded
}
