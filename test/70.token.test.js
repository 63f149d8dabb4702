// Tokens: one way to write each, bounds, signatures, merging, and what a replica makes of more origins than fit.

import { describe, expect, it } from 'vitest'
import { Progress } from '../lib/progress/progress.js'
import { MAX_ORIGINS, MAX_TOKEN_CHARS, mergeEntries, Tokens } from '../lib/progress/token.js'
import { eventOf, openReplica, rejects, throws } from './helpers.js'

const SECRET = 'sixteen bytes or more'
const OTHER = 'another of sixteen bytes'
const plain = new Tokens([])
const signed = new Tokens([SECRET])
const entries = (token, tokens = plain) => [...tokens.parse(token)]
const refused = expect.objectContaining({
  code: 'REPLIC_TOKEN',
  message: expect.stringMatching(/^.{1,200}$/s),
})

it('what a request asked for is read once; little is kept, and nothing that was refused', () => {
  const progress = new Progress({ tokenSecret: SECRET, maxWaits: 1 }, () => {})
  const text = `${signed.format(new Map([[11, 1]]))}, ${signed.format(new Map([[12, 2]]))}`
  const asked = progress.seen(text)
  expect([...asked].sort()).toEqual([
    [11, 1],
    [12, 2],
  ])
  expect(progress.seen(text)).toBe(asked)
  for (let i = 0; i < 2; i++)
    expect(() => progress.seen(plain.format(new Map([[11, 1]])))).toThrow(refused)
  for (let i = 1; i <= 5000; i++) progress.seen(signed.format(new Map([[11, i]])))
  expect(progress.seen(text)).toEqual(asked)
  expect(progress.seen(text)).not.toBe(asked)
})

describe('a token', () => {
  it.each([
    ['1.0', [[1, 0]]],
    ['1.1', [[1, 1]]],
    ['4294967295.9007199254740991', [[2 ** 32 - 1, 2 ** 53 - 1]]],
    [
      '9.5~1.1~a.z~1z141z3.2gosa7pa2gv',
      [
        [9, 5],
        [1, 1],
        [10, 35],
        [2 ** 32 - 1, 2 ** 53 - 1],
      ],
    ],
    [
      '9.0~a.1',
      [
        [9, 0],
        [10, 1],
      ],
    ],
  ])('%s', (token, expected) => {
    expect(entries(token)).toEqual(expected)
    expect(plain.format(new Map(expected))).toBe(token)
  })

  it.each([
    '',
    '.',
    '1',
    '1.',
    '.1',
    '0.1',
    '01.1',
    '1.01',
    '-1.1',
    '1.-1',
    '1.1.1',
    ' 1.1',
    '1.1\n',
    '1.1e3',
    '1,1',
    '٣.1',
    '4294967296.1',
    '1.9007199254740992',
    '1.99999999999999999',
    '9'.repeat(100_000),
    '1.1~',
    '~1.1',
    '1.1~~2.2',
    '1.1~1.2', // an origin twice
    '5.1~3.1~2.1', // not in order
    '5.1~3.1~3.1',
    '5.1~3.0', // says nothing
    '5.1~A.1',
    '5.1~0a.1',
    '5.1~1z141z4.1', // beyond the greatest origin
    '5.1~1.2gosa7pa2gw', // beyond the greatest sequence
    `1.1${Array.from({ length: MAX_ORIGINS }, (_, i) => `~${(i + 2).toString(36)}.1`).join('')}`,
    '~'.repeat(2000),
    1.1,
    null,
    undefined,
    {},
    ['1.1'],
    Symbol('1.1'),
  ])('%j is malformed', (token) => {
    for (const tokens of [plain, signed]) expect(() => tokens.parse(token)).toThrow(refused)
  })

  it('is exactly as long as the bound says, at most', () => {
    const most = Array.from({ length: MAX_ORIGINS }, (_, i) => [2 ** 32 - 1 - i, 2 ** 53 - 1])
    const token = signed.format(new Map(most))
    expect(token).toHaveLength(MAX_TOKEN_CHARS)
    expect(MAX_TOKEN_CHARS).toBe(2030)
    expect(token).toMatch(/^[\w.~-]+$/) // a header, a cookie, a URL carry it as it is
    expect(signed.parse(token)).toEqual(new Map(most))
    const one = () => plain.format(new Map([...most, [1, 1]]))
    expect(one).toThrow(expect.objectContaining({ code: 'REPLIC_TOO_LARGE' }))
  })

  it('comes back as it was, whatever it holds; changed anywhere, it is refused or another one', () => {
    let random = 99
    const next = (below) => {
      random = (random * 1103515245 + 12345) % 2 ** 31
      return random % below
    }
    for (let round = 0; round < 300; round++) {
      const made = new Map()
      while (made.size < 1 + next(20)) made.set(1 + next(2 ** 31), 1 + next(2 ** 31))
      const token = plain.format(made)
      expect(plain.parse(token)).toEqual(made)
      expect(plain.format(plain.parse(token))).toBe(token)
      const at = next(token.length)
      const changed = token.slice(0, at) + '0aZ.~-'[next(6)] + token.slice(at + 1)
      try {
        expect(plain.format(plain.parse(changed))).toBe(changed) // one way to write each
      } catch (error) {
        expect(error.code).toBe('REPLIC_TOKEN')
      }
    }
  })
})

describe('a signed token', () => {
  const made = new Map([
    [12, 345],
    [7, 1],
  ])
  const token = signed.format(made)

  it('says the same with 23 more characters', () => {
    expect(token).toMatch(/^12\.345~7\.1-[\w-]{22}$/)
    expect(signed.parse(token)).toEqual(made)
    expect(token).toBe('12.345~7.1-TjvtWoW25E0dwpHAEXPF0w')
  })

  it('is refused with any character changed, left out or added', () => {
    for (let i = 0; i < token.length; i++) {
      for (const character of ['', '0', 'A', '-', '_', '~', '.', `${token[i]}${token[i]}`]) {
        const changed = token.slice(0, i) + character + token.slice(i + 1)
        if (changed !== token) expect(() => signed.parse(changed), changed).toThrow(refused)
      }
    }
    for (const changed of [`${token}A`, `${token}=`, ` ${token}`, token.split('-')[0], '12.345-']) {
      expect(() => signed.parse(changed), changed).toThrow(refused)
    }
  })

  it('is refused by who has another secret, or none', () => {
    for (const tokens of [plain, new Tokens([OTHER])])
      expect(() => tokens.parse(token)).toThrow(refused)
  })

  it('is accepted while secrets are changed: the first signs, each is accepted', () => {
    const both = new Tokens([OTHER, SECRET])
    expect(both.parse(token)).toEqual(made)
    expect(() => signed.parse(both.format(made))).toThrow(refused)
    expect(new Tokens([OTHER]).parse(both.format(made))).toEqual(made)
  })

  it('is not of use where the same secret signs something else', () => {
    expect(() => signed.parse(`12.345~7.1-${'A'.repeat(22)}`)).toThrow(refused)
  })
})

describe('merging', () => {
  it('has the greatest of each, and begins as the last one does', () => {
    const merge = (...tokens) => plain.format(mergeEntries(tokens.map((t) => plain.parse(t))))
    expect(merge('5.4')).toBe('5.4')
    expect(merge('5.4', '5.3')).toBe('5.4')
    expect(merge('5.4', '6.1')).toBe('6.1~5.4')
    expect(merge('5.4~7.7', '6.1', '7.3')).toBe('7.7~5.4~6.1')
    expect(merge('5.0', '6.1')).toBe('6.1')
    expect(merge('6.1', '5.0')).toBe('5.0~6.1')
    const parts = ['3.9~5.1', '5.8~1.2', '1.1~2.2']
    expect(merge(merge(...parts.slice(0, 2)), parts[2])).toBe(merge(...parts))
    expect(merge(...parts, parts[2])).toBe(merge(...parts))
  })

  it('of a replica: all must be valid here', async () => {
    const db = await openReplica({ peerId: 5, tokenSecret: SECRET })
    const token = await db.upsert('note', { id: 1 })
    expect(token).toMatch(/^5\.1-[\w-]{22}$/)
    expect(db.mergeTokens(token, token)).toBe(token)
    await db.waitFor(token, 0)
    for (const bad of ['5.1', `${token.slice(0, -1)}_`, '', null]) {
      await throws(() => db.mergeTokens(token, bad), 'REPLIC_TOKEN')
      await rejects(db.waitFor(bad, 600_000), 'REPLIC_TOKEN')
    }
    await throws(() => db.mergeTokens(), 'REPLIC_USAGE')
    const other = await openReplica({ tokenSecret: [Buffer.from(OTHER), SECRET] })
    expect([...other.mergeTokens(token)].slice(0, 3).join('')).toBe('5.1')
  })

  it('of more origins than fit is refused', async () => {
    const db = await openReplica()
    const many = Array.from({ length: MAX_ORIGINS + 1 }, (_, i) => `${i + 1}.1`)
    expect(db.mergeTokens(...many.slice(1)).length).toBeLessThan(MAX_TOKEN_CHARS)
    await throws(() => db.mergeTokens(...many), 'REPLIC_TOO_LARGE', '101')
  })
})

describe('the options', () => {
  it.each([
    [{ tokenSecret: 'short' }],
    [{ tokenSecret: [] }],
    [{ tokenSecret: [SECRET, 'short'] }],
    [{ tokenSecret: 16 }],
    [{ maxWaits: 0 }],
  ])('%j', async (options) => {
    const error = await rejects(openReplica(options), 'REPLIC_USAGE')
    expect(error.message).not.toContain('short') // a secret is not shown
  })
})

describe('token()', () => {
  it('covers what is applied here, and begins with this peer', async () => {
    const db = await openReplica({ peerId: 5 })
    expect(db.token()).toBe('5.0')
    expect(await db.batch(() => {})).toBe('5.0')
    const token = await db.upsert('note', { id: 1 })
    expect(token).toBe('5.1')
    expect(db.token()).toBe(token)
    expect(await db.batch(() => {})).toBe(token)
  })

  const progress = (n, onOverflow) => {
    const made = new Progress({ tokenSecret: undefined, maxWaits: 10 }, onOverflow)
    const vector = Array.from({ length: n }, (_, i) => [1000 + i, 10, 5_000 - i]).flat()
    made.begin(7, vector) // 1000 was heard last
    return made
  }

  it('says so when there are more origins than fit', () => {
    expect(plain.parse(progress(MAX_ORIGINS - 1).all()).size).toBe(MAX_ORIGINS)
    const call = () => progress(MAX_ORIGINS).all()
    expect(call).toThrow(expect.objectContaining({ code: 'REPLIC_TOO_LARGE' }))
  })

  it('answers leave out then what was silent for longest, and one event says so', () => {
    const events = []
    const replica = progress(150, (error) => events.push(error.code))
    const covered = () => plain.parse(replica.answer(null))
    expect([...covered()][0]).toEqual([7, 0])
    expect(covered().size).toBe(MAX_ORIGINS)
    expect([...covered().keys()].slice(1)).toEqual(
      Array.from({ length: MAX_ORIGINS - 1 }, (_, i) => 1000 + i),
    )
    replica.advance([1149, 11, 9_000])
    expect(covered().get(1149)).toBe(11)
    expect(covered().has(1098)).toBe(false)
    // What another peer had only told of is taken back, also where a query has seen it late.
    replica.goBack([1149, 10, 8_000])
    replica.advance([1149, 11, 9_000], false)
    expect([covered().get(1149), replica.has(1149, 11)]).toEqual([10, false])
    replica.advance([1149, 11, 9_000], true)
    expect(covered().get(1149)).toBe(11)
    // What the session has seen elsewhere, and is not here, comes first.
    const seen = plain.parse('9.9~sg.b') // 1024.11
    const answer = plain.parse(replica.answer(seen))
    expect([answer.get(9), answer.get(1024), answer.size]).toEqual([9, 11, MAX_ORIGINS])
    // Without monotonic reads: what it has written stays, this request's at any rate.
    const full = new Map(Array.from({ length: MAX_ORIGINS }, (_, i) => [1000 + i, 10]))
    const written = plain.parse(replica.answerWritten(full, 4))
    expect([written.get(7), written.get(1000), written.has(1099)]).toEqual([4, 10, false])
    expect(written.size).toBe(MAX_ORIGINS)
    expect(events).toEqual(['REPLIC_TOO_LARGE'])
  })

  it('the event reaches the application', async () => {
    const db = await openReplica()
    const seen = eventOf(db, 'error')
    const { progressOf } = await import('../lib/progress/progress.js')
    const full = new Map(Array.from({ length: MAX_ORIGINS }, (_, i) => [1 + i, 10]))
    progressOf(db).answer(full)
    expect(await seen).toMatchObject({ code: 'REPLIC_TOO_LARGE' })
  })
})
