// A row that one replica's schema cannot store: what its application is told, and that nothing else
// waits for it. (What may happen in which order: test/core/test_stuck.c, and the simulator.)

import { spawnSync } from 'node:child_process'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import {
  converged,
  eventOf,
  link,
  openReplica,
  rejects,
  synced,
  tableDdl,
  until,
} from './helpers.js'

const PLAIN = tableDdl(
  'doc',
  ['tenant INTEGER NOT NULL', 'id BLOB NOT NULL', 'doc TEXT', 'n INTEGER'],
  'tenant, id',
)
const INDEX = "CREATE INDEX docX ON doc(json_extract(doc, '$.x'))"
const KEY = { tenant: 9007199254740993n, id: new Uint8Array([1, 255]) }
const SHOWN = { tenant: '9007199254740993', id: "X'01FF'" }
const STUCK = { table: 'doc', key: SHOWN, code: 'SQLITE_ERROR', why: 'malformed JSON' }
const STEPS = [{ up: PLAIN }, { up: INDEX, down: 'DROP INDEX docX' }]

const hasStuck = (db, rows) => until(() => db.status().stuck.rows === rows)

/** 11 without the index, 12 with it, 13 without: 13 is linked to 12 alone. */
async function three() {
  const [a, b, c] = await Promise.all(
    [11, 12, 13].map((peerId) => openReplica({ peerId, ddl: '', heartbeatMs: 20 })),
  )
  for (const db of [a, b, c]) await db.migrate(db === b ? STEPS : STEPS.slice(0, 1))
  await link(b, a)
  await link(c, b)
  return [a, b, c]
}

it('is told with its table, its key and what SQLite said; all else goes on, and goes through', async () => {
  const [a, b, c] = await three()
  const error = eventOf(b, 'error')
  await a.upsert('doc', { ...KEY, doc: 'not json' })
  await a.upsert('doc', { tenant: 1, id: 'later', doc: '{"x":1}' })
  await synced(a, b, c)
  expect(await error).toMatchObject({ code: 'SQLITE_ERROR' })
  expect((await error).message).toContain('a row of doc cannot be stored here')
  expect((await error).message).toContain('malformed JSON')
  await hasStuck(b, 1)
  expect(b.status().stuck).toEqual({ rows: 1, first: [STUCK] })
  expect(b.metrics()).toMatch(/^replic_stuck_rows 1$/m)
  expect(await b.all('SELECT id FROM doc')).toEqual([{ id: 'later' }])
  expect(await c.get('SELECT count(*) AS n FROM doc')).toEqual({ n: 2 })
  expect(a.status().stuck).toEqual({ rows: 0, first: [] })
  expect(b.status().links.map(({ held }) => held)).toEqual([null, null])

  // verify says why, on either side
  const unequal = {
    equal: false,
    table: 'doc',
    difference: 'stuck',
    why: 'malformed JSON',
    key: KEY,
  }
  expect(await b.verify(11)).toMatchObject({ peers: [{ ...unequal, here: null }] })
  expect(await a.verify()).toMatchObject({ peers: [{ ...unequal, there: null }] })
  expect(await c.verify()).toMatchObject({ equal: false, peers: [unequal] })

  // so does the command line, of the closed file
  const { path } = b.status()
  await b.close()
  const cli = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url))
  const { stdout } = spawnSync(execPath, [cli, 'status', path], { encoding: 'utf8' })
  expect(stdout).toContain('1 rows that its schema cannot store')

  // as does the next process, until the row or the schema is another
  const again = await openReplica({ path, ddl: '', heartbeatMs: 20 })
  expect(again.status().stuck).toEqual({ rows: 1, first: [STUCK] })
  await rejects(again.upsert('doc', { ...KEY, n: 1 }), 'SQLITE_ERROR', 'malformed JSON', 'stuck')
  await again.migrate(STEPS.slice(0, 1))
  await hasStuck(again, 0)
  await link(again, a)
  await converged(again, a)
  expect(await again.verify()).toMatchObject({ equal: true })
})

it('is there when its writer or anybody else has mended it', async () => {
  const [a, b, c] = await three()
  await a.upsert('doc', { ...KEY, doc: 'not json', n: 1 })
  await synced(a, b, c)
  await hasStuck(b, 1)
  await c.upsert('doc', { ...KEY, doc: '[]' })
  await synced(a, b, c)
  await hasStuck(b, 0)
  await converged(a, b, c)
  expect(await b.get('SELECT doc, n FROM doc')).toEqual({ doc: '[]', n: 1 })
  expect(await b.verify()).toMatchObject({ equal: true })
})
