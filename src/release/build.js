// Builds the addon without node-gyp, Python or a download, of what the package carries.
//
//   node src/release/build.js             for this machine, with cc and c++: into build/Release
//   node src/release/build.js <target>... the binaries that are published: into prebuilds/<target>;
//                                         'all': every one of TARGETS
//
// Those are built by clang and lld, all from one machine (Debian's packages, see docs/packaging.md).
// They use nothing that came after glibc 2.28, and no C++ runtime (runtime.cc). What is up to date is
// not compiled again.

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = dirname(fileURLToPath(import.meta.url))
const ROOT = dirname(dirname(HERE))
const ADDON = 'replic_sqlite.node'

/** The newest version of glibc whose symbols the published binaries may use. */
export const GLIBC = '2.28'

const LLVM = '/usr/lib/llvm-14'
const glibc = (triple, headers, libraries) => ({
  triple,
  headers,
  cxxFlags: ['-include', join(HERE, 'glibc.h')],
  libraries,
})
const musl = (triple) => ({
  triple,
  headers: [`/usr/include/${triple}`],
  cxxFlags: ['-D_LIBCPP_HAS_MUSL_LIBC'],
  libc: `/usr/lib/${triple}/libc.so`,
})

/** What is published and can be built here. */
export const TARGETS = {
  'linux-x64': glibc(
    'x86_64-linux-gnu',
    ['/usr/include/x86_64-linux-gnu', '/usr/include'],
    '/lib/x86_64-linux-gnu',
  ),
  'linux-arm64': glibc(
    'aarch64-linux-gnu',
    ['/usr/aarch64-linux-gnu/include'],
    '/usr/aarch64-linux-gnu/lib',
  ),
  'linux-x64-musl': musl('x86_64-linux-musl'),
  'linux-arm64-musl': musl('aarch64-linux-musl'),
}

const DEFINES = [
  'NAPI_VERSION=8',
  'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
  'NAPI_DISABLE_CPP_EXCEPTIONS',
  'NODE_ADDON_API_DISABLE_DEPRECATED',
]
const BOTH = ['-O2', '-fPIC', '-fvisibility=hidden', '-fno-strict-aliasing', '-w']
const CXX = ['-std=c++17', '-fno-exceptions', '-fno-rtti', '-fvisibility-inlines-hidden']

// In the package sources of others lie in src/vendor; in a clone npm has them.
function vendored(folder, fromPackage) {
  const packed = join(ROOT, 'src', 'vendor', folder)
  if (existsSync(packed)) return packed
  const [name, ...path] = fromPackage.split(':')
  return join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), ...path)
}

function sources() {
  const list = (folder, ending) =>
    readdirSync(join(ROOT, 'src', folder), { recursive: true })
      .filter((name) => name.endsWith(ending))
      .map((name) => join(ROOT, 'src', folder, name))
  const sqlite = vendored('sqlite', 'better-sqlite3:deps/sqlite3')
  const api = [
    vendored('node-addon-api', 'node-addon-api:.'),
    vendored('node-api-headers', 'node-api-headers:include'),
  ]
  return { sqlite, api, core: list('core', '.c'), napi: list('napi', '.cc') }
}

// options.gypi has an option per line; so has every reader of it.
function sqliteOptions() {
  const text = readFileSync(join(ROOT, 'src', 'sqlite', 'options.gypi'), 'utf8')
  return [...text.matchAll(/^ *'([A-Z][^']*)',$/gm)].map(([, option]) => `-D${option}`)
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (out += data))
    child.on('error', (error) => {
      const missing = error.code === 'ENOENT' ? ': install it, or name another one (CC, CXX)' : ''
      reject(new Error(`${command} cannot be started (${error.message})${missing}`))
    })
    child.on('close', (status) => {
      if (status === 0) resolve(out)
      else reject(new Error(`${command} ${args.join(' ')}\n${out}failed with status ${status}`))
    })
  })
}

let processors = availableParallelism()
const waiting = []

/** Runs the tasks, as many at a time as there are processors, other targets' among them. After a failure none begins. */
async function inParallel(tasks) {
  const runOne = async (task) => {
    if (processors > 0) processors--
    else await new Promise((resolve) => waiting.push(resolve))
    try {
      await task()
    } catch (error) {
      waiting.length = 0
      throw error
    } finally {
      const next = waiting.shift()
      if (next) next()
      else processors++
    }
  }
  await Promise.all(tasks.map(runOne))
}

const modified = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
const newest = (folder) =>
  Math.max(...readdirSync(folder, { recursive: true }).map((name) => modified(join(folder, name))))

/** Compiles everything into `out`; resolves with the objects. */
async function compile({ out, cc, cxx, flags, more = [], cxxFlags, headers, runtime }) {
  const { sqlite, api, core, napi } = sources()
  mkdirSync(out, { recursive: true })
  const src = (name) => join(ROOT, 'src', name)
  const own = Math.max(...['core', 'napi', 'release'].map((name) => newest(src(name))))
  const amalgamation = Math.max(
    modified(join(sqlite, 'sqlite3.c')),
    modified(join(src('sqlite'), 'options.gypi')),
  )
  const includes = [`-I${src('core')}`, '-isystem', sqlite]
  const objects = []
  const tasks = []
  const add = (source, since, compiler, ...args) => {
    const object = join(out, `${basename(source)}.o`)
    objects.push(object)
    if (modified(object) > since) return
    tasks.push(() =>
      run(compiler, [...flags, ...BOTH, ...more, ...args, ...headers, '-c', source, '-o', object]),
    )
  }
  add(join(sqlite, 'sqlite3.c'), amalgamation, cc, ...sqliteOptions())
  const cxxArgs = [...CXX, ...cxxFlags, ...DEFINES.map((name) => `-D${name}`)]
  for (const source of [...napi, ...(runtime ? [join(HERE, 'runtime.cc')] : [])]) {
    add(source, own, cxx, ...cxxArgs, ...includes, ...api.flatMap((path) => ['-isystem', path]))
  }
  for (const source of core) add(source, own, cc, '-std=c11', ...includes)
  await inParallel(tasks)
  return objects
}

// ---- for this machine --------------------------------------------------------------------------

async function buildHere() {
  if (process.platform === 'win32') {
    throw new Error('on Windows build in a clone: npm ci (with Visual Studio and Python)')
  }
  const mac = process.platform === 'darwin'
  const [cc, cxx] = [process.env.CC || 'cc', process.env.CXX || 'c++']
  const more = (process.env.CFLAGS ?? '').split(' ').filter(Boolean)
  const flags = ['-D_FILE_OFFSET_BITS=64', ...(mac ? ['-mmacosx-version-min=11.0'] : [])]
  const objects = await compile({
    out: join(ROOT, 'build', 'here'),
    cc,
    cxx,
    flags,
    more,
    cxxFlags: [],
    headers: [],
    runtime: false,
  })
  const target = join(ROOT, 'build', 'Release', ADDON)
  mkdirSync(dirname(target), { recursive: true })
  const link = mac
    ? ['-bundle', '-undefined', 'dynamic_lookup', '-mmacosx-version-min=11.0']
    : ['-shared', '-pthread']
  await run(cxx, [...link, ...objects, '-lm', '-o', target])
  return target
}

// ---- for publishing ----------------------------------------------------------------------------

// What the C library offers, as a library without code: each symbol in the newest version that is
// not newer than GLIBC. A binary that is linked with it asks for just these.
const LIBRARY_OF = [
  [/^__tls_get_addr$/, 'ld-linux-x86-64.so.2'], // x64 only
  [/^pthread_/, 'libpthread.so.0'],
  [/^(a?(cos|sin|tan)h?|atan2|exp|log(2|10)?|pow|fmod|sqrt|trunc|ceilf?|floor)$/, 'libm.so.6'],
]
const libraryOf = (name) => LIBRARY_OF.find(([pattern]) => pattern.test(name))?.[1] ?? 'libc.so.6'

/** Compares versions such as 2.4 and 2.28. */
export function compareVersions(a, b) {
  const [x, y] = [a, b].map((version) => version.split('.').map(Number))
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    if ((x[i] ?? 0) !== (y[i] ?? 0)) return (x[i] ?? 0) - (y[i] ?? 0)
  }
  return 0
}

/** The symbols of an ELF file: [{ name, version, isDefined }]. */
export async function symbolsOf(file) {
  const lines = (await run('readelf', ['--dyn-syms', '--wide', file])).split('\n')
  return lines
    .map((line) => line.trim().split(/ +/))
    .filter((fields) => /^\d+:$/.test(fields[0]) && fields[7])
    .map((fields) => {
      const [name, version] = fields[7].split(/@+/)
      return { name, version, isDefined: fields[6] !== 'UND' }
    })
}

/** The names of the libraries that an ELF file needs. */
export async function neededBy(file) {
  const text = await run('readelf', ['--dynamic', '--wide', file])
  return [...text.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name)
}

async function offered(folder) {
  const versions = new Map()
  for (const library of ['libc.so.6', 'libm.so.6', 'ld-linux-x86-64.so.2']) {
    const file = join(folder, library)
    if (!existsSync(file)) continue
    for (const { name, version, isDefined } of await symbolsOf(file)) {
      const number = isDefined && /^GLIBC_([\d.]+)$/.exec(version ?? '')?.[1]
      if (!number || compareVersions(number, GLIBC) > 0) continue
      const known = versions.get(name)
      if (!known || compareVersions(number, known) > 0) versions.set(name, number)
    }
  }
  return versions
}

// Debian's musl has no name of its own inside (a soname); every musl takes "libc.so" for itself.
async function librariesOf(target, wanted) {
  if (target.libc) {
    const symbols = (await symbolsOf(target.libc)).filter(({ isDefined }) => isDefined)
    const has = new Set(symbols.map(({ name }) => name))
    const lacking = wanted.filter((name) => !has.has(name))
    if (lacking.length > 0) throw new Error(`${target.triple}: musl has no ${lacking.join(', ')}`)
    return new Map([['libc.so', new Map([[undefined, wanted]])]])
  }
  const versions = await offered(target.libraries)
  const libraries = new Map()
  for (const name of wanted) {
    const version = versions.get(name)
    if (!version) throw new Error(`${target.triple}: glibc ${GLIBC} has no '${name}'`)
    const library = libraryOf(name)
    const nodes = libraries.get(library) ?? new Map()
    libraries.set(library, nodes.set(version, [...(nodes.get(version) ?? []), name]))
  }
  return libraries
}

async function stubs(target, out, wanted) {
  const paths = []
  for (const [library, nodes] of await librariesOf(target, wanted)) {
    const path = join(out, library)
    const names = [...nodes.values()].flat()
    const label = (name) => `.globl ${name}\n.type ${name},%function\n${name}:\n`
    writeFileSync(`${path}.s`, names.map(label).join(''))
    const map = [...nodes]
      .filter(([version]) => version !== undefined)
      .map(([version, list]) => `GLIBC_${version} { ${list.join('; ')}; };\n`)
    writeFileSync(`${path}.map`, map.join(''))
    await run('clang', [
      `--target=${target.triple}`,
      ...['-shared', '-nostdlib', '-fuse-ld=lld', `-Wl,-soname,${library}`],
      ...(map.length > 0 ? [`-Wl,--version-script=${path}.map`] : []),
      ...[`${path}.s`, '-o', path],
    ])
    paths.push(path)
  }
  return paths
}

const isNodeApi = (name) => name.startsWith('napi_') || name.startsWith('node_api_')

/** Builds the binary of one of TARGETS; resolves with its path. */
export async function buildTarget(name) {
  const target = TARGETS[name]
  if (!target) throw new Error(`no target '${name}': there are ${Object.keys(TARGETS).join(', ')}`)
  const out = join(ROOT, 'build', 'prebuilds', name)
  const flags = [`--target=${target.triple}`, '-nostdlibinc', '-D_FILE_OFFSET_BITS=64']
  if (target.triple.startsWith('aarch64')) flags.push('-mno-outline-atomics') // they need libgcc
  const headers = target.headers.flatMap((path) => ['-isystem', path])
  const objects = await compile({
    out,
    cc: 'clang',
    cxx: 'clang++',
    flags: [...flags, '-ffunction-sections', '-fdata-sections'],
    cxxFlags: [
      ...target.cxxFlags,
      ...['-isystem', `${LLVM}/include/c++/v1`, '-D_LIBCPP_DISABLE_EXTERN_TEMPLATE'],
    ],
    headers,
    runtime: true,
  })
  const file = join(ROOT, 'prebuilds', name, ADDON)
  if (modified(file) > Math.max(newest(HERE), ...objects.map(modified))) return file
  const link = (to, ...more) =>
    run('clang', [
      `--target=${target.triple}`,
      ...['-shared', '-nostdlib', '-fuse-ld=lld', '-Wl,--gc-sections', '-Wl,-z,nodelete', '-s'],
      ...['-Wl,-z,relro', '-Wl,-z,now', `-Wl,--version-script=${join(HERE, 'exports.map')}`],
      ...['-Wl,--unresolved-symbols=ignore-all', ...objects, ...more, '-o', to],
    ])
  const probe = join(out, 'probe.so')
  await link(probe)
  const open = (await symbolsOf(probe))
    .filter((symbol) => !symbol.isDefined && !isNodeApi(symbol.name))
    .map((symbol) => symbol.name)
  const libraries = await stubs(target, out, open)
  mkdirSync(dirname(file), { recursive: true })
  await link(file, ...libraries)
  return file
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const wanted = process.argv.slice(2)
  const names = wanted.includes('all') ? Object.keys(TARGETS) : wanted
  try {
    if (names.length === 0) console.log(`built ${await buildHere()}`)
    const build = async (name) => console.log(`built ${await buildTarget(name)}`)
    await Promise.all(names.map(build))
  } catch (error) {
    console.error(`replic-sqlite: building failed: ${error.message}`)
    process.exitCode = 1
  }
}
