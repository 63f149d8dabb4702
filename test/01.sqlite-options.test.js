// The list that SQLite is compiled with, and its explanation in docs/, name the same options.

import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
const matches = (text, pattern) => [...text.matchAll(pattern)].map((match) => match[1])

const compiled = matches(read('src/sqlite/options.gypi'), /^ *'([A-Z][^']*)',$/gm)

test('the options are sorted, each once', () => {
  expect(compiled.length).toBeGreaterThan(0)
  expect(compiled).toEqual([...new Set(compiled)].sort())
})

test('docs/sqlite-options.md explains every option, in the same order', () => {
  const explained = matches(read('docs/sqlite-options.md'), /^- `([^`]+)`: \S/gm)
  expect(explained).toEqual(compiled)
})
