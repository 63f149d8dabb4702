import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { codes, ReplicError } from '../lib/base/errors.js'
import { load } from '../lib/base/load.js'

const text = (path) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
const unique = (list) => [...new Set(list)].sort()
const sorted = [...codes].sort()

describe('one table of codes', () => {
  it('is the one of the C header', () => {
    const header = [...text('src/core/errors.h').matchAll(/X\(REPLIC_\w+, "(\w+)"/g)]
    expect(header.map((match) => match[1]).sort()).toEqual(sorted)
  })

  it('is the one of the addon', () => {
    expect([...load().codes].sort()).toEqual(sorted)
  })

  it('is the one of the types', () => {
    const union = /type ReplicCode =(.*?)\n\n/s.exec(text('types/index.d.ts'))[1]
    expect([...union.matchAll(/'(\w+)'/g)].map((match) => match[1]).sort()).toEqual(sorted)
  })

  it.skipIf(!existsSync(new URL('../docs/errors.md', import.meta.url)))(
    'is the one of docs/errors.md',
    () => {
      const named = text('docs/errors.md').match(/\bREPLIC_[A-Z_]+\b/g)
      expect(unique(named)).toEqual(sorted)
    },
  )

  it('is all that lib/ uses', () => {
    const lib = fileURLToPath(new URL('../lib', import.meta.url))
    const files = readdirSync(lib, { recursive: true }).filter((name) =>
      /^(?!cli).*\.js$/.test(name),
    )
    const used = files.flatMap((file) => text(`lib/${file}`).match(/'REPLIC_\w+'/g) ?? [])
    expect(used.length).toBeGreaterThan(10)
    for (const code of unique(used)) expect(sorted).toContain(code.slice(1, -1))
  })

  it('cannot be changed', () => {
    expect(Object.isFrozen(codes)).toBe(true)
  })
})

describe('ReplicError', () => {
  it('is an Error with a code', () => {
    const cause = new Error('why')
    const error = new ReplicError('REPLIC_BUSY', 'the queue is full', { cause })
    expect(error).toBeInstanceOf(Error)
    expect(error).toMatchObject({ name: 'ReplicError', code: 'REPLIC_BUSY', cause })
    expect(String(error)).toBe('ReplicError: the queue is full')
    expect(Object.keys(error)).toEqual(['code'])
  })
})
