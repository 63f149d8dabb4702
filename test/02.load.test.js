// Where the addon is looked for, and what is said when it is not there or cannot be loaded.

import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ReplicError } from '../lib/base/errors.js'
import { libcOf, load } from '../lib/base/load.js'

const BUILT = fileURLToPath(new URL('../build/Release/replic_sqlite.node', import.meta.url))
const LIBC = process.platform === 'linux' ? libcOf('/proc/self/maps') : undefined
const TARGET = `${process.platform}-${process.arch}${LIBC === 'musl' ? '-musl' : ''}`

let root
let prebuilt
let built

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'replic-load-'))
  prebuilt = join(root, 'prebuilds', TARGET, 'replic_sqlite.node')
  built = join(root, 'build', 'Release', 'replic_sqlite.node')
})

afterEach(() => rmSync(root, { recursive: true }))

const put = (place, write) => {
  mkdirSync(dirname(place), { recursive: true })
  write(place)
}
const garbage = (place) => put(place, () => writeFileSync(place, 'not a library\n'))
const addon = (place) => put(place, () => copyFileSync(BUILT, place))

function refusal() {
  try {
    load(root)
  } catch (error) {
    return error
  }
  throw new Error('load() found an addon')
}

test('without an addon, the error names the places, the platform and the remedy', () => {
  const error = refusal()
  expect(error).toBeInstanceOf(ReplicError)
  expect(error.code).toBe('REPLIC_LOAD')
  expect(error.message).toContain(`no native addon for ${TARGET}`)
  if (LIBC) expect(error.message).toContain(`(${LIBC})`)
  expect(error.message).toContain(`Node.js ${process.versions.node}`)
  expect(error.message).toContain(`${prebuilt}: not there`)
  expect(error.message).toContain(`${built}: not there`)
  expect(error.message).toContain(`node "${join(root, 'src', 'release', 'build.js')}"`)
  expect(error).not.toHaveProperty('cause')
})

test('an addon that cannot be loaded is named with the reason', () => {
  garbage(prebuilt)
  const error = refusal()
  expect(error.code).toBe('REPLIC_LOAD')
  expect(error.cause).toBeInstanceOf(Error)
  expect(error.message).toContain(`${prebuilt}: ${error.cause.message}`)
  expect(error.message).toContain(`${built}: not there`)
})

test('the one that was built here comes first', () => {
  addon(built)
  garbage(prebuilt)
  expect(load(root).Connection).toBeTypeOf('function')
})

test('the prebuilt one serves where that is missing or does not load', () => {
  addon(prebuilt)
  expect(load(root).Connection).toBeTypeOf('function')
  garbage(built)
  expect(load(root).Connection).toBeTypeOf('function')
})

test('the C library is told by the dynamic loader in the memory map', () => {
  const maps = join(root, 'maps')
  writeFileSync(maps, '7f12a000-7f12b000 r-xp 00000000 fe:01 42 /lib/ld-musl-x86_64.so.1\n')
  expect(libcOf(maps)).toBe('musl')
  writeFileSync(maps, '7f12a000-7f12b000 r-xp 00000000 fe:01 42 /lib/x86_64-linux-musl/libc.so\n')
  expect(libcOf(maps)).toBe('musl')
  writeFileSync(maps, '7f12a000-7f12b000 r-xp 00000000 fe:01 42 /lib/x86_64-linux-gnu/libc.so.6\n')
  expect(libcOf(maps)).toBe('glibc')
  writeFileSync(maps, '7f12a000-7f12b000 r-xp 00000000 fe:01 42 /lib/ld-linux-x86-64.so.2\n')
  expect(libcOf(maps)).toBe('glibc')
  expect(libcOf(join(root, 'missing'))).toBe('glibc')
})
