// The binaries that are published: what they ask of a system, and that they run on it, in the tarball as it
// is installed. Processors and C libraries that this machine has not are emulated (qemu) or lent by Debian
// (musl); see docs/packaging.md.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { compareVersions, GLIBC, neededBy, symbolsOf, TARGETS } from '../src/release/build.js'
import { runProcess, tempDir } from './helpers.js'
import { isThere, layOutTests, pack, ROOT, runtime, TARGET } from './packed.js'

vi.setConfig({ testTimeout: 600_000, hookTimeout: 1_200_000 }) // compilers run here

const base = join(tmpdir(), `replic-prebuilds-${process.pid}`)
const project = join(base, 'project')
const program = (name) =>
  ['/usr/bin', '/bin', '/lib'].map((folder) => join(folder, name)).find(existsSync)
const canBuild =
  TARGET === 'linux-x64' &&
  isThere('the binaries for other systems', [
    program('clang'),
    program('ld.lld'),
    existsSync('/usr/aarch64-linux-gnu/include/stdio.h'),
    existsSync('/usr/include/aarch64-linux-musl/stdio.h'),
  ])
const built = canBuild ? Object.keys(TARGETS) : []

beforeAll(async () => {
  if (!canBuild) return
  mkdirSync(base)
  layOutTests(project, await pack(built))
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

describe.each(built)('%s', (name) => {
  const file = join(ROOT, 'prebuilds', name, 'replic_sqlite.node')
  const isMusl = name.endsWith('-musl')

  it('needs the C library and nothing else', async () => {
    const allowed = isMusl
      ? ['libc.so']
      : ['libc.so.6', 'libm.so.6', 'libpthread.so.0', 'ld-linux-x86-64.so.2']
    const needed = await neededBy(file)
    expect(needed.length).toBeGreaterThan(0)
    for (const library of needed) expect(allowed).toContain(library)
  })

  it(`asks for no symbol that came after glibc ${GLIBC}, and for Node-API's own`, async () => {
    const symbols = await symbolsOf(file)
    const open = symbols.filter(({ isDefined }) => !isDefined)
    expect(open.length).toBeGreaterThan(100)
    for (const { name: symbol, version } of open) {
      if (/^(napi_|node_api_)/.test(symbol)) continue
      expect(symbol).not.toMatch(/^(uv_|_Z|v8)/) // Bun has none of libuv's; no C++ library is needed
      if (isMusl) expect(version).toBeUndefined()
      else {
        const number = /^GLIBC_([\d.]+)$/.exec(version)?.[1]
        expect(number, `${symbol} has a version`).toBeDefined()
        expect(compareVersions(number, GLIBC), symbol).toBeLessThanOrEqual(0)
      }
    }
  })

  it('shows what Node looks for, and has no memory that JavaScript would have to free', async () => {
    const symbols = await symbolsOf(file)
    const shown = symbols.filter(({ isDefined }) => isDefined).map((symbol) => symbol.name)
    expect(shown.sort()).toEqual(
      ['napi_register_module_v1', 'node_api_module_get_api_version_v1'].sort(),
    )
    // Electron's rule: its V8 has no buffers whose memory lies outside.
    for (const symbol of symbols) expect(symbol.name).not.toMatch(/external_(array)?buffer/)
  })
})

// Bun for musl wants a libstdc++ for musl: test/musl has what it asks for.
function muslLibrary(triple, archive) {
  const folder = join(base, triple)
  const run = (command, ...args) => execFileSync(command, args, { cwd: folder })
  mkdirSync(folder)
  const members = ['tree', 'list', 'hash_bytes', 'hashtable_c++0x', 'dyncast', 'tinfo']
  const classes = ['class_type_info', 'si_class_type_info', 'vmi_class_type_info']
  const objects = [...members, ...classes].map((name) => `${name}.o`)
  run('ar', 'x', archive, ...objects)
  const target = `--target=${triple}`
  const headers = ['-nostdlibinc', '-isystem', `/usr/include/${triple}`]
  const source = join(ROOT, 'test', 'musl', 'libstdcxx.cc')
  run(
    'clang++',
    target,
    ...headers,
    '-O1',
    '-fPIC',
    '-fno-exceptions',
    '-fno-rtti',
    '-c',
    source,
    '-o',
    'own.o',
  )
  const soname = '-Wl,-soname,libstdc++.so.6'
  run(
    'clang',
    target,
    '-shared',
    '-nostdlib',
    '-fuse-ld=lld',
    soname,
    'own.o',
    ...objects,
    '-o',
    'libstdc++.so.6',
  )
  return folder
}

const X64_ARCHIVE = '/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a'
const ARM_ARCHIVE = '/usr/lib/gcc-cross/aarch64-linux-gnu/12/libstdc++.a'
const qemu = program('qemu-aarch64')

// Per binary and runtime: what it needs here, and the command that runs it.
const RUNS = [
  ['linux-x64', 'Node', [execPath], () => [execPath]],
  ['linux-arm64', 'Node 22', [qemu, runtime('node-arm64')], (...needs) => needs],
  ['linux-arm64', 'Bun', [qemu, runtime('bun-arm64')], (...needs) => needs],
  [
    'linux-x64-musl',
    'Bun',
    [program('ld-musl-x86_64.so.1'), runtime('bun-x64-musl'), existsSync(X64_ARCHIVE)],
    (loader, bun) => [loader, '--library-path', muslLibrary('x86_64-linux-musl', X64_ARCHIVE), bun],
  ],
  [
    'linux-arm64-musl',
    'Bun',
    [qemu, program('ld-musl-aarch64.so.1'), runtime('bun-arm64-musl'), existsSync(ARM_ARCHIVE)],
    (emulator, loader, bun) => [
      ...[emulator, loader, '--library-path', muslLibrary('aarch64-linux-musl', ARM_ARCHIVE), bun],
    ],
  ],
]

it.each(RUNS.filter(([name, on, needs]) => canBuild && isThere(`${name} on ${on}`, needs)))(
  '%s runs on %s, from the tarball',
  async (name, _, needs, commandOf) => {
    const [command, ...args] = commandOf(...needs)
    const smoke = join(project, 'test', 'bun', 'smoke.js')
    // The loader has only this one to choose.
    const prebuilds = join(project, 'node_modules', 'replic-sqlite', 'prebuilds')
    const others = readdirSync(prebuilds).filter((each) => each !== name)
    for (const each of others) renameSync(join(prebuilds, each), join(base, each))
    onTestFinished(() => {
      for (const each of others) renameSync(join(base, each), join(prebuilds, each))
    })
    expect(await runProcess(command, [...args, smoke, tempDir()], { cwd: project })).toEqual({
      code: 0,
      signal: null,
      stdout: 'as expected\n',
      stderr: '',
    })
  },
)
