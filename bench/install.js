// What installing and importing costs, beside better-sqlite3: size of the package, peak memory and time of
// `npm install` of the tarball, time of an import (both load their addon later, when a
// database is opened). Without a network: of both the
// tarball is installed, better-sqlite3's as npm packs it from what `npm ci` has brought (its install script
// does not run: there is nothing to be downloaded here, so its time is that of unpacking alone).
//   node bench/install.js [rounds]

import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { execPath } from 'node:process'
import { makePackage } from '../src/release/package.js'

const ROUNDS = Number(process.argv[2] ?? 7)
const base = mkdtempSync(join(tmpdir(), 'replic-install-'))
const { resolve } = createRequire(import.meta.url)

function packOther(name) {
  const from = dirname(resolve(`${name}/package.json`))
  const args = ['pack', '--silent', '--ignore-scripts', '--pack-destination', base]
  return join(base, execFileSync('npm', args, { cwd: from, encoding: 'utf8' }).trim())
}

const sides = {
  'replic-sqlite': { tarball: makePackage(join(base, 'package')) },
  'better-sqlite3': { tarball: packOther('better-sqlite3') },
}

const sizeOf = (path) => {
  const found = statSync(path)
  if (!found.isDirectory()) return found.size
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0)
}

// Read from npm itself, as it ends: it is one process. (What it starts besides writes less.)
const PEAK = join(base, 'peak.cjs')
writeFileSync(
  PEAK,
  `const { appendFileSync } = require('node:fs')
  process.on('exit', () => appendFileSync(process.env.PEAK, process.resourceUsage().maxRSS + '\\n'))`,
)

function install(name, { tarball }, round) {
  const project = join(base, `${name}-${round}`)
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }')
  const peak = join(project, 'peak')
  const env = { ...process.env, NODE_OPTIONS: `--require ${PEAK}`, PEAK: peak }
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const began = performance.now()
  execFileSync('npm', [...args, '--prefer-offline', tarball], { cwd: project, env })
  const ms = performance.now() - began
  const peaks = readFileSync(peak, 'utf8').trim().split('\n').map(Number)
  return { project, ms, mib: Math.max(...peaks) / 1024 }
}

function importing(name, project) {
  const source = `const began = process.hrtime.bigint()
    await import(${JSON.stringify(name)})
    console.log(Number(process.hrtime.bigint() - began) / 1e6)`
  const args = ['--input-type=module', '-e', source]
  return Number(execFileSync(execPath, args, { cwd: project, encoding: 'utf8' }))
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]
const results = {}
try {
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, side] of Object.entries(sides)) {
      const { project, ms, mib } = install(name, side, round)
      results[name] ??= {
        ms: [],
        mib: [],
        import: [],
        installed: sizeOf(join(project, 'node_modules')),
      }
      results[name].ms.push(ms)
      results[name].mib.push(mib)
      results[name].import.push(importing(name, project))
    }
  }
  console.log(`median of ${ROUNDS} rounds, interleaved; Node ${process.version}\n`)
  console.log('                 tarball  installed   npm install   its peak   import')
  for (const [name, { ms, mib, import: times, installed }] of Object.entries(results)) {
    const mb = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`
    const cells = [mb(sizeOf(sides[name].tarball)), mb(installed), `${Math.round(median(ms))} ms`]
    cells.push(`${Math.round(median(mib))} MiB`, `${median(times).toFixed(1)} ms`)
    console.log(name.padEnd(15), ...cells.map((cell) => cell.padStart(10)))
  }
} finally {
  rmSync(base, { recursive: true, force: true })
}
