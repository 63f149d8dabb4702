// Where two lists of digests, columns, rows or cells differ.

import { BUCKETS, lower } from './digest.js'

/** [mine, theirs] for every name that either list has, in order. */
export function pairs(here, there) {
  const byName = (list) => new Map(list.map((each) => [lower(each.name), each]))
  const [mine, theirs] = [byName(here), byName(there)]
  const names = [...new Set([...mine.keys(), ...theirs.keys()])].sort()
  return names.map((name) => [mine.get(name), theirs.get(name)])
}

/** What of two lists of { name, text, hash } differs: { here, there }, each name -> text. */
export function differing(mine, theirs) {
  const here = {}
  const there = {}
  for (const [a, b] of pairs(mine, theirs)) {
    if (a?.hash === b?.hash) continue
    if (a) here[a.name] = a.text
    if (b) there[b.name] = b.text
  }
  return { here, there }
}

/** The first bucket whose digest differs. */
export function firstBucket(mine, theirs) {
  for (let i = 0; i < BUCKETS; i++) {
    const [from, to] = [8 * i, 8 * i + 8]
    if (!mine.subarray(from, to).equals(theirs.subarray(from, to))) return i
  }
  return 0
}

/** The first key's hash whose row differs or is missing; undefined if there is none. */
export function firstEntry(mine, theirs) {
  const [a, b] = [new Map(mine), new Map(theirs)]
  return [...new Set([...a.keys(), ...b.keys()])].sort().find((key) => a.get(key) !== b.get(key))
}
