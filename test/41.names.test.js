// Types, running modules and the API reference have the same names; each of them is described.

import { readFileSync } from 'node:fs'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { DEFAULTS } from '../lib/base/options.js'
import { Replica, ReplicError } from '../lib/index.js'
import { readTypes, reference } from './api.js'
import { link, openReplica, runProcess } from './helpers.js'
import { bunProgram } from './programs.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const REFERENCE = readFileSync(new URL('../docs/api.md', import.meta.url), 'utf8')
const modules = readTypes()
const declared = Object.fromEntries(
  modules.map(({ name, declarations }) => [
    name,
    declarations
      .filter(({ isValue }) => isValue)
      .map((one) => one.name)
      .sort(),
  ]),
)
const [{ declarations }] = modules
const membersOf = (name) => declarations.find((one) => one.name === name).members
const names = (name) => membersOf(name).map((member) => member.name)

describe('types name what the running modules export', () => {
  const entries = JSON.stringify(Object.keys(declared))

  it.each([
    ['imported by Node', execPath, ['--input-type=module'], 'await import(name)'],
    ['required by Node', execPath, ['--no-warnings'], 'require(name)'],
    ['imported by Bun', bunProgram(), [], 'await import(name)'],
  ])('%s', async (_, program, args, load) => {
    const source = `(async () => {
      const found = {}
      for (const name of ${entries}) found[name] = Object.keys(${load}).sort()
      console.log(JSON.stringify(found))
    })()`
    const { stdout, stderr } = await runProcess(program, [...args, '-e', source], { cwd: ROOT })
    expect(stderr).toBe('')
    const found = JSON.parse(stdout)
    for (const exported of Object.values(found)) {
      const at = exported.indexOf('module.exports')
      if (at >= 0) exported.splice(at, 1)
    }
    expect(found).toEqual(declared)
  })

  it('each entry of package.json that is a module', () => {
    const { exports } = JSON.parse(
      readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
    )
    const typed = Object.entries(exports).filter(([, { types }]) => types)
    expect(modules.map(({ entry }) => entry)).toEqual(typed.map(([entry]) => entry))
    expect(modules.length).toBeGreaterThan(9)
  })
})

describe('types name what is there', () => {
  it.each([
    ['Replica', Replica],
    ['ReplicError', ReplicError],
  ])('in the class %s', (name, Class) => {
    const members = membersOf(name).filter((member) => !member.isStatic)
    const own = Object.getOwnPropertyNames(Class.prototype).filter((key) => key !== 'constructor')
    const stated = members.map((member) => member.name)
    for (const key of own) expect(stated).toContain(key)
    for (const key of stated.filter((key) => !['constructor', 'code', 'token'].includes(key))) {
      expect(
        key === '[Symbol.asyncDispose]'
          ? Symbol.asyncDispose in Class.prototype
          : key in Class.prototype,
        key,
      ).toBe(true)
    }
  })

  it('static methods of Replica', () => {
    const stated = membersOf('Replica').filter(({ isStatic }) => isStatic)
    const there = Object.getOwnPropertyNames(Replica).filter(
      (key) => typeof Replica[key] === 'function',
    )
    expect(stated.map((member) => member.name)).toEqual(there)
  })

  it('what a Replica has of an EventEmitter', () => {
    for (const key of names('Emitter')) expect(Replica.prototype[key], key).toBeTypeOf('function')
  })

  it('options of open', () => {
    expect(names('OpenOptions').sort()).toEqual(Object.keys(DEFAULTS).sort())
  })

  it('and the default of each', () => {
    const UNITS = { KiB: 1024, MiB: 1024 ** 2, ms: 1, hours: 3_600_000 }
    for (const { name, doc } of membersOf('OpenOptions')) {
      const [, number, unit] = /Default:? ([\d,]+)(?: (\w+))?/.exec(doc) ?? []
      const said = number && Number(number.replaceAll(',', '')) * (UNITS[unit] ?? 1)
      const [, word] = /(?:'(\w+)' \(default\))/.exec(doc) ?? []
      const [, truth] = /Default (true|false)/.exec(doc) ?? []
      const isTrue = truth && truth === 'true'
      const isEndless = /Default Infinity/.test(doc) ? Infinity : undefined
      expect([name, said ?? word ?? isTrue ?? isEndless]).toEqual([name, DEFAULTS[name]])
    }
  })

  it('status() of linked replicas', async () => {
    const [a, b] = [await openReplica(), await openReplica()]
    await link(a, b)
    const status = a.status()
    expect(Object.keys(status).sort()).toEqual(names('Status').sort())
    expect(Object.keys(status.counters).sort()).toEqual(names('Counters').sort())
    expect(Object.keys(status.links[0]).sort()).toEqual(names('LinkStatus').sort())
    expect(Object.keys(status.batches.calls).sort()).toEqual(names('Histogram').sort())
  })
})

describe('docs/api.md', () => {
  it('is up to date: npm run api', () => expect(REFERENCE).toBe(reference()))

  it('tells that a query may have no row', () => {
    const returns = /db\.getSync\n[^#]*\): (.*)\n```/.exec(REFERENCE)?.[1]
    expect(returns).toBe('R | undefined')
  })

  it('has a section for each name', () => {
    const headings = [...REFERENCE.matchAll(/^###+ (?:function )?(?:\w+\.)?(\w+)/gm)].map(
      ([, name]) => name,
    )
    for (const { declarations: all } of modules) {
      for (const { name } of all) expect(headings).toContain(name)
    }
    for (const name of names('Replica').filter((key) => /^\w+$/.test(key))) {
      expect(headings).toContain(name)
    }
  })

  it('describes each of them', () => {
    const bare = modules.flatMap(({ name, declarations: all }) =>
      all.flatMap((one) =>
        [one, ...one.members.map((member) => ({ ...member, name: `${one.name}.${member.name}` }))]
          .filter(({ doc }) => doc === '')
          .map((thing) => `${name}: ${thing.name}`),
      ),
    )
    expect(bare).toEqual([])
  })
})
