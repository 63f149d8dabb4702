// Lays out what is published in build/package, and packs it: build/replic-sqlite-<version>.tgz.
//
//   node src/release/package.js
//
// It is the files that package.json names, with what the source build needs of other packages
// (src/vendor), the binaries that are in prebuilds/, and for each of them a sub-path for bundlers. The
// package.json of what is published has no scripts and no development dependencies.

import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const ADDON = 'replic_sqlite.node'

/** What src/vendor holds: per folder the package, where in it, and the files. */
const VENDORED = {
  sqlite: ['better-sqlite3', 'deps/sqlite3', ['sqlite3.c', 'sqlite3.h']],
  'node-addon-api': [
    'node-addon-api',
    '.',
    ['LICENSE.md', 'napi.h', 'napi-inl.h', 'napi-inl.deprecated.h'],
  ],
  'node-api-headers': [
    'node-api-headers',
    'include',
    ['js_native_api.h', 'js_native_api_types.h', 'node_api.h', 'node_api_types.h', '../LICENSE'],
  ],
}

function vendor(out) {
  const { resolve } = createRequire(import.meta.url)
  for (const [folder, [name, path, files]] of Object.entries(VENDORED)) {
    const from = join(dirname(resolve(`${name}/package.json`)), path)
    for (const file of files) {
      cpSync(join(from, file), join(out, 'src', 'vendor', folder, file.replace('../', '')))
    }
  }
}

/** The names of the binaries; each gets the modules of its sub-path. */
function subPaths(out) {
  const targets = readdirSync(join(out, 'prebuilds')).sort()
  for (const target of targets) {
    const folder = join(out, 'prebuilds', target)
    writeFileSync(
      join(folder, 'addon.cjs'),
      `// A bundler follows this path, as it is written out.\nmodule.exports = require('./${ADDON}')\n`,
    )
    writeFileSync(
      join(folder, 'index.js'),
      `// replic-sqlite/${target}: all of replic-sqlite, with this binary and no other.
import { use } from '../../lib/base/load.js'
import addon from './addon.cjs'

use(addon)
export * from '../../lib/index.js'
`,
    )
  }
  return targets
}

function manifest(targets) {
  const text = readFileSync(join(ROOT, 'package.json'), 'utf8')
  const { scripts, devDependencies, allowScripts, gypfile, ...published } = JSON.parse(text)
  for (const target of targets) {
    published.exports[`./${target}`] = {
      types: './types/index.d.ts',
      default: `./prebuilds/${target}/index.js`,
    }
  }
  // npm would run node-gyp where it finds a binding.gyp and no "install".
  return { ...published, gypfile: false }
}

/** Lays it out and packs it; returns the path of the tarball. */
export function makePackage(out = join(ROOT, 'build', 'package')) {
  if (!existsSync(join(ROOT, 'prebuilds'))) {
    throw new Error("there are no binaries: 'npm run prebuilds' builds them, see docs/packaging.md")
  }
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  const { files, version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  for (const name of [...files, 'README.md', 'LICENSE']) {
    cpSync(join(ROOT, name), join(out, name), { recursive: true })
  }
  vendor(out)
  const targets = subPaths(out)
  writeFileSync(join(out, 'package.json'), `${JSON.stringify(manifest(targets), null, 2)}\n`)
  execFileSync(
    'npm',
    ['pack', '--silent', '--ignore-scripts', '--pack-destination', dirname(out)],
    {
      cwd: out,
      stdio: ['ignore', 'pipe', 'inherit'],
      shell: process.platform === 'win32', // npm is a .cmd there
    },
  )
  return join(dirname(out), `replic-sqlite-${version}.tgz`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(makePackage())
