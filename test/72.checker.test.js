// The checker of the session test finds what it is to find: histories that are right, and each of them with
// one thing wrong.

import { describe, expect, it } from 'vitest'
import { check } from './session/checker.js'

const pair = (id, n) => [
  { id, n },
  { id: id + 1, n },
]
const shared = (version, base = null) => ({ id: 1, version, base })
const write = (session, rows) => ({ session, kind: 'write', rows })
const maybe = (session, rows) => ({ session, kind: 'maybe', rows })
const told = (session, rows) => ({ session, kind: 'told', rows })
const read = (session, rows, asked = rows.map(({ id }) => id)) => ({
  session,
  kind: 'read',
  rows: Object.assign(rows, { asked }),
})
const version = (text) => ({ id: 1, n: null, version: text })
const kinds = (history, finals) => check(history, finals).violations.map(({ kind }) => kind)

const end = [...pair(10, 2), ...pair(12, 1), version('b.1')]
const nodes = [end, end, end]
const good = [
  write('a', pair(10, 1)),
  read('a', pair(10, 1)),
  write('a', [shared('a.1')]),
  read('b', [...pair(10, 1), version('a.1')]),
  write('b', [shared('b.1', 'a.1')]),
  write('b', pair(12, 1)),
  write('a', pair(10, 2)),
  read('b', pair(10, 1)), // nothing says that b has to see it
  told('b', pair(10, 2)),
  read('b', pair(10, 2)),
  read('a', [...pair(12, 1), version('b.1')]),
]

it('a history in which all is right', () => {
  const { violations, checked } = check(good, nodes)
  expect(violations).toEqual([])
  for (const n of Object.values(checked)) expect(n).toBeGreaterThan(0)
})

describe('finds', () => {
  const after = (...steps) => kinds([...good, ...steps], nodes)

  it.each([
    ['a write that is not seen', ['readYourWrites'], [read('a', pair(10, 1))], 2],
    ['a write of which there is no row', ['readYourWrites'], [read('b', [], [12, 13])], 2],
    [
      'a read that goes back',
      ['monotonicReads'],
      [read('c', pair(10, 2)), read('c', pair(10, 1))],
      2,
    ],
    [
      'what was handed over',
      ['writesFollowReads'],
      [told('c', pair(10, 2)), read('c', pair(10, 1))],
      2,
    ],
    [
      'half a group',
      ['atomicGroups'],
      [
        read('c', [
          { id: 10, n: 2 },
          { id: 11, n: 1 },
        ]),
      ],
      2,
    ],
    ['a group with a row missing', ['atomicGroups'], [read('c', [{ id: 11, n: 1 }], [10, 11])], 1],
    ['a version before the one written', ['readYourWrites'], [read('b', [version('a.1')])], 1],
    [
      'a version before the one read',
      ['monotonicReads'],
      [read('c', [version('b.1')]), read('c', [version('a.1')])],
      1,
    ],
  ])('%s', (_, expected, steps, n) => {
    const found = after(...steps)
    expect(new Set(found)).toEqual(new Set(expected))
    expect(found).toHaveLength(n)
  })

  it('a version from before some that lie in between, acknowledged or not', () => {
    const chain = [maybe('c', [shared('c.1', 'b.1')]), write('d', [shared('d.1', 'c.1')])]
    const last = nodes.map((rows) => [...rows.slice(0, -1), version('d.1')])
    expect(kinds([...good, ...chain, read('d', [version('d.1')])], last)).toEqual([])
    expect(kinds([...good, ...chain, read('d', [version('a.1')])], last)).toEqual([
      'readYourWrites',
    ])
    // Another one, made upon the same, may have won.
    const other = [write('e', [shared('e.1', 'b.1')]), read('d', [version('e.1')])]
    expect(kinds([...good, ...chain, ...other], last)).toEqual([])
  })

  it('nodes that differ, writes that are lost, ends that come before what was written', () => {
    const differing = [end, end, [...end.slice(0, -1), version('a.1')]]
    expect(kinds(good, differing)).toEqual(['convergence'])
    const lost = [...pair(10, 1), ...pair(12, 1), version('b.1')]
    expect(new Set(kinds(good, [lost, lost, lost]))).toEqual(new Set(['monotonicWrites']))
    const before = [...end.slice(0, -1), version('a.1')]
    expect(kinds(good, [before, before, before])).toEqual(['writesFollowReads'])
  })
})
