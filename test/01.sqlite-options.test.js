// The list that SQLite is compiled with, its explanation in docs/, and what the addon says of itself.

import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { openReplica } from './helpers.js'

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
const matches = (text, pattern) => [...text.matchAll(pattern)].map((match) => match[1])

const listed = matches(read('src/sqlite/options.gypi'), /^ *'([A-Z][^']*)',$/gm)

test('the options are sorted, each once', () => {
  expect(listed.length).toBeGreaterThan(0)
  expect(listed).toEqual([...new Set(listed)].sort())
})

test('docs/sqlite-options.md explains every option, in the same order', () => {
  const explained = matches(read('docs/sqlite-options.md'), /^- `([^`]+)`: \S/gm)
  expect(explained).toEqual(listed)
})

test('the addon was compiled with them, and no feature is added or left out besides', async () => {
  const db = await openReplica({ ddl: null })
  const rows = await db.all('PRAGMA compile_options')
  const reported = rows.map((row) => row.compile_options)
  // SQLite reports neither what it asks of the system nor this default; and flags without "=1".
  const silent = /^HAVE_|^SQLITE_TRUSTED_SCHEMA=/
  const wanted = listed
    .filter((option) => !silent.test(option))
    .map((option) => option.replace('SQLITE_', '').replace('FOREIGN_KEYS=1', 'FOREIGN_KEYS'))
  expect(reported).toEqual(expect.arrayContaining(wanted))
  const isFeature = (option) => /^(ENABLE|OMIT)_/.test(option)
  expect(reported.filter(isFeature)).toEqual(wanted.filter(isFeature))
  expect(await db.get('PRAGMA trusted_schema')).toEqual({ trusted_schema: 0 })
})
