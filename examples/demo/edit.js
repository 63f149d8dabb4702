// The edits that all peers make at the same time, on overlapping rows: the same columns of a row and
// different ones, values and NULLs, deletions and returns, one table and two in one group.

import { randomFrom } from './random.js'

const HOT_ROWS = 200 // the first of them get four fifths of all edits

/**
 * A function that makes one random edit, resolving with its token. `cities`: country, id and name of
 * all. `config`: { seed, index, life } (which peer, and in which of its lives).
 */
export function editor(db, cities, { seed, index, life }) {
  const random = randomFrom(seed * 1000 + index * 10 + life)
  const pick = () =>
    cities[random(random(5) < 4 ? Math.min(HOT_ROWS, cities.length) : cities.length)]
  let count = 0

  return () => {
    count++
    const { country, id, name } = pick()
    const choice = random(20)
    if (choice < 9) return db.upsert('city', { country, id, visits: count })
    if (choice < 13) return db.upsert('city', { country, id, note: `${name}, by ${index}` })
    if (choice < 15) return db.upsert('city', { country, id, note: null, admin2: null })
    if (choice < 16) return db.delete('city', { country, id })
    if (choice < 18) return db.upsert('city', { country, id, deletedAt: null })
    return db.batch((tx) => {
      tx.upsert('city', { country, id, visits: count, note: null })
      tx.upsert('country', { code: country, lastCity: name, lastPeer: index, edits: count })
    })
  }
}
