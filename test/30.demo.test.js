// npm run demo: the main job, on a part of the input.

import { readdirSync } from 'node:fs'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { report } from '../examples/demo/report.js'
import { runProcess, tempDir } from './helpers.js'

const MAIN = fileURLToPath(new URL('../examples/demo/main.js', import.meta.url))

/** Runs the demo with a temporary directory of its own; gives what runProcess does, and `left`: files there. */
async function demo(...args) {
  const dir = tempDir()
  const env = { ...process.env, TMPDIR: dir, TEMP: dir }
  const result = await runProcess(execPath, [MAIN, ...args], { env })
  return { ...result, left: readdirSync(dir) }
}

describe('npm run demo', () => {
  it('converges, says so, and leaves nothing behind', async () => {
    const { code, stdout, stderr, left } = await demo('--rows', '3000', '--seconds', '1')
    expect({ code, stderr, left }).toEqual({ code: 0, stderr: '', left: [] })
    for (const event of ['is cut off', 'is back', 'is killed', 'runs again on its file']) {
      expect(stdout).toContain(event)
    }
    const rows = stdout.match(/^(peer \d|) +.* (city|country) +[\d,]+ {2}[0-9a-f]{16}$/gm)
    expect(rows).toHaveLength(6)
    for (const table of ['city', 'country']) {
      const digests = rows.filter((row) => row.includes(` ${table} `)).map((row) => row.slice(-16))
      expect(new Set(digests).size).toBe(1)
    }
    expect(stdout).toMatch(/ city +3,000 /)
    expect(stdout.match(/: present on every peer$/gm)).toHaveLength(3)
    expect(stdout.trimEnd()).toMatch(/\nvectors and tables of all 3 peers: equal$/)
  }, 60_000)

  it('keeps the files when asked to', async () => {
    const args = ['--peers', '2', '--rows', '10', '--seconds', '1', '--seed', '7', '--keep']
    const { code, stdout, left } = await demo(...args)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^2 peers, editing for 1 s, --seed 7$/m)
    expect(left).toHaveLength(1)
    expect(stdout).toContain(`${left[0]}\n`)
  }, 60_000)

  it('explains its options', async () => {
    const { code, stdout } = await demo('--help')
    expect(code).toBe(0)
    for (const option of ['peers', 'rows', 'seconds', 'seed', 'keep']) {
      expect(stdout).toContain(`--${option} `)
    }
  })

  it.each([
    [['--peers', '1'], "--peers must be an integer from 2 to 16, not '1'"],
    [['--rows', '1e3'], "--rows must be an integer from 1 to 4294967295, not '1e3'"],
    [['--seconds', '0'], "--seconds must be an integer from 1 to 3600, not '0'"],
    [['--speed', '9'], "'--speed'"],
    [['fast'], "'fast'"],
  ])('refuses %j', async (args, words) => {
    const { code, stdout, stderr, left } = await demo(...args)
    expect({ code, stdout, left }).toEqual({ code: 2, stdout: '', left: [] })
    expect(stderr).toContain(words)
    expect(stderr).toContain('--help')
  })
})

describe('its verdict', () => {
  const peer = (name, peerId, given) => ({
    name,
    peerId,
    acked: 5,
    vector: { 1: 5, 2: 5 },
    tables: [{ name: 'city', rows: 2, digest: 'ab'.repeat(32) }],
    ...given,
  })
  const verdict = (given) => report([peer('peer 0', 1), peer('peer 1', 2, given)])
  const equal = 'vectors and tables of all 2 peers: equal'
  const different = 'vectors and tables of all 2 peers: NOT EQUAL'

  it('all is well', () => {
    const { ok, lines } = verdict({ vector: { 2: 5, 1: 5 } })
    expect(ok).toBe(true)
    expect(lines.at(-1)).toBe(equal)
  })

  it.each([
    ['a digest', { tables: [{ name: 'city', rows: 2, digest: 'ac'.repeat(32) }] }],
    ['a vector', { vector: { 1: 5, 2: 6 } }],
    ['a table', { tables: [] }],
  ])('%s differs', (_, given) => {
    const { ok, lines } = verdict(given)
    expect(ok).toBe(false)
    expect(lines.at(-1)).toBe(different)
  })

  it('an acknowledged write is missing', () => {
    const { ok, lines } = report([peer('peer 0', 1, { acked: 6 }), peer('peer 1', 2)])
    expect(ok).toBe(false)
    expect(lines.at(-1)).toBe(equal)
    expect(lines).toContain('peer 0 acknowledged its patches up to 6: MISSING on peer 0, peer 1')
  })
})
