// What an operator or the application does to the file of a process that writes: the table of docs/reliability.md,
// row by row, with real processes and SIGKILL. No write resolves that is not there after it.

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { obstacle, placeOf, ROWS, sqlite3, tableOfRows } from './chaos/operator.js'
import { isTested } from './chaos/play.js'
import { opened, Writer } from './chaos/writer.js'

vi.setConfig({ testTimeout: 60_000 })

it('docs/reliability.md has these rows', () => {
  const page = readFileSync(new URL('../docs/reliability.md', import.meta.url), 'utf8')
  expect(page).toContain(tableOfRows())
})

/** Plays `step` with a writer in the row's place; all of it is gone afterwards. */
async function withWriter(row, durability, step) {
  const base = mkdtempSync(join(tmpdir(), 'replic-operator-'))
  const dir = join(base, 'data')
  mkdirSync(dir)
  const place = placeOf(row, dir)
  let writer
  try {
    writer = await Writer.start(place.file, { durability, program: row.program?.(), ...place })
    await step(writer, { ...place, deed: (...args) => writer.ask('deed', ...args) })
  } finally {
    await writer?.kill()
    place.undo()
    rmSync(base, { recursive: true, force: true })
  }
}

/** After the deed nothing is refused. */
async function goesOn(row, writer, { seen }) {
  if (!row.isAlone) await sqlite3(seen, 'SELECT count(*) FROM note') // of all that are not us, the last to close it
  await writer.acks(5)
  expect(writer.refused).toEqual([])
  expect(writer.events).toEqual([])
  expect((await writer.ask('status')).fileGone).toBe(null)
}

/** After the deed writes are refused, and reading goes on. */
async function isRefused(row, writer, { file }) {
  await writer.refusals(3, row.refuses)
  expect(await writer.ask('count')).toBeGreaterThanOrEqual(5)
  expect(new Set(writer.refused.map(({ code }) => code))).toEqual(new Set([row.refuses]))
  if (row.heals) return
  expect(writer.events).toEqual([row.refuses])
  expect((await writer.ask('status')).fileGone).toContain(file)
}

async function play(row, durability) {
  await withWriter(row, durability, async (writer, place) => {
    if (row.warns) expect(writer.warnings).toContain(row.warns)
    const end = await row.does(place)
    const mark = await writer.ask('next') // from here on all begin after it
    if (row.refuses) await isRefused(row, writer, place)
    else await goesOn(row, writer, place)
    if (row.heals) {
      await end()
      await writer.acks(5)
    }
    await writer.kill()
    row.putBack?.(place)
    const { rows, warnings } = await opened(place.seen)
    if (row.warnsNext) expect(warnings).toContain(row.warnsNext)
    const lost = writer.acked.filter((n) => !rows.has(n))
    expect(lost.filter((n) => n >= mark || row.spares !== false)).toEqual([])
    const kept = writer.refused.filter(({ n }) => rows.has(n))
    if (row.heals) expect(kept).toEqual([])
  })
}

const CASES = ROWS.flatMap((row) =>
  ['full', 'normal'].map((durability) => [row.name, durability, row]),
)

describe.skipIf(!isTested('what is done to files', obstacle()))('nothing is lost when', () => {
  it.concurrent.each(CASES)('%s, with durability %s', (_, durability, row) => play(row, durability))
})
