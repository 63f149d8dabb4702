// The sum that every frame of the core's ends with: CRC-32C of all before it, in four bytes, little-endian. The core
// writes and checks it; here are the few frames that it does not see. A HELLO has up to 4 MiB, for which a loop in JavaScript
// would keep the event loop for 20 ms: so the core sums up these as well.

import { addon } from './load.js'

const SUM_BYTES = 4

/** The frame with its sum. */
export function withSum(frame) {
  const sum = Buffer.alloc(SUM_BYTES)
  sum.writeUInt32LE(addon().frameSum(frame))
  return Buffer.concat([frame, sum])
}

/** The frame without its sum; undefined where that is wrong. `bytes` is a Buffer. */
export function withoutSum(bytes) {
  const length = bytes.length - SUM_BYTES
  if (length < 0) return undefined
  const frame = bytes.subarray(0, length)
  return addon().frameSum(frame) === bytes.readUInt32LE(length) ? frame : undefined
}
