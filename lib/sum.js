// The sum that every frame of the core's ends with: CRC-32C of all before it, in four bytes, little-endian. The core
// writes and checks it (src/core/crc.c); here are the few frames that it does not see.

const POLYNOMIAL = 0x82f63b78
const SUM_BYTES = 4

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte
  for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 ? POLYNOMIAL : 0)
  return rest
})

function crc32c(bytes) {
  let rest = -1
  for (const byte of bytes) rest = (rest >>> 8) ^ TABLE[(rest ^ byte) & 255]
  return ~rest >>> 0
}

/** The frame with its sum. */
export function withSum(frame) {
  const sum = Buffer.alloc(SUM_BYTES)
  sum.writeUInt32LE(crc32c(frame))
  return Buffer.concat([frame, sum])
}

/** The frame without its sum; undefined where that is wrong. `bytes` is a Buffer. */
export function withoutSum(bytes) {
  const length = bytes.length - SUM_BYTES
  if (length < 0) return undefined
  const frame = bytes.subarray(0, length)
  return crc32c(frame) === bytes.readUInt32LE(length) ? frame : undefined
}
