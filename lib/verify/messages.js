// The messages of verify() between two peers: docs/protocol.md, "Verify". What comes from another peer may be anything.

import { printable } from '../base/errors.js'
import { BUCKETS } from './digest.js'

export const MOST_QUESTION = 64 * 1024 // bytes
const HASH = /^[0-9a-f]{16}$/
const VECTOR_HASH = /^[0-9a-f]{64}$/

/** A message as an object; null if it is none. */
export function parse(bytes) {
  try {
    const message = JSON.parse(Buffer.from(bytes).toString())
    return Number.isSafeInteger(message?.id) && Number.isSafeInteger(message.n ?? 0)
      ? message
      : null
  } catch {
    return null
  }
}

export const isListOf = (list, isItem) => Array.isArray(list) && list.every(isItem)
export const isText = (value) => typeof value === 'string'
export const isCount = (value) => Number.isSafeInteger(value) && value >= 0
export const columnOf = ([name, type, key]) => ({
  name: printable(name),
  type: printable(type),
  key,
})
export const isHash = (value) => isText(value) && HASH.test(value)
export const isVectorHash = (value) => isText(value) && VECTOR_HASH.test(value)
/** Whether an item is an array of as many as there are checks, which its parts pass. */
const tuple =
  (...checks) =>
  (item) =>
    Array.isArray(item) &&
    item.length === checks.length &&
    checks.every((accepts, i) => accepts(item[i]))
export const isDigest = tuple(isText, isText, isCount, isText)
export const isColumn = tuple(isText, isText, isCount)
export const isEntry = tuple(isHash, isHash)
const isCell = tuple(isText, isText, isText)
const isKeyValue = tuple((type) => isText(type) && Object.hasOwn(UNPACK, type), isText)
export const isBuckets = (text) =>
  isText(text) && Buffer.from(text, 'base64').length === 8 * BUCKETS
export const isKey = (key, { keys }) => isListOf(key, isKeyValue) && key.length === keys.length
export const isRow = (row, table) =>
  row === null || (isListOf(row?.cells, isCell) && isKey(row.key, table))

/** A value of a key as [type, text]. */
export function packed(value) {
  if (value === null) return ['null', '']
  if (typeof value === 'bigint') return ['integer', `${value}`]
  if (typeof value === 'number') return ['real', `${value}`]
  return typeof value === 'string' ? ['text', value] : ['blob', Buffer.from(value).toString('hex')]
}

const UNPACK = {
  null: () => null,
  integer: (text) => (/^-?[0-9]{1,19}$/.test(text) ? BigInt(text) : null),
  real: Number,
  text: (text) => text,
  blob: (text) => new Uint8Array(Buffer.from(text, 'hex')),
}
export const unpacked = ([type, text]) => UNPACK[type](text)

/** An integer as a number where that holds it exactly. */
export function plain(value) {
  const number = typeof value === 'bigint' ? Number(value) : value
  return typeof value !== 'bigint' || Number.isSafeInteger(number) ? number : value
}
