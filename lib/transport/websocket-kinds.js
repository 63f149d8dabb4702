// Every kind of WebSocket by one interface: what differs between them, and what the codes of their ends mean.

import { printable, ReplicError, usage } from '../base/errors.js'
import { guarded } from '../base/guard.js'

export const CLOSED = 3 // a readyState

// Codes of a close (RFC 6455, 7.4), as errors. A browser's kind of socket may only send 1000 and its
// own ones, from 4000: those are ours plus 3000.
const OWN = 3000
const CODES = {
  1002: 'REPLIC_PROTOCOL',
  1003: 'REPLIC_PROTOCOL',
  1007: 'REPLIC_PROTOCOL',
  1008: 'REPLIC_AUTH',
  1009: 'REPLIC_TOO_LARGE',
  1011: 'REPLIC_BUSY',
  1012: 'REPLIC_BUSY',
  1013: 'REPLIC_BUSY',
}
const ORDERLY = [1000, 1005]
export const LOST = 1006

/** The code of a close for this reason. */
export function closeCode(error) {
  const { code } = error ?? {}
  if (!error) return 1000
  if (code === 'REPLIC_PROTOCOL' || code === 'REPLIC_VERSION') return 1002
  if (code === 'REPLIC_AUTH' || code === 'REPLIC_PEER' || code === 'REPLIC_FORK') return 1008
  if (code === 'REPLIC_TOO_LARGE') return 1009
  return code === 'REPLIC_BUSY' ? 1013 : 1011
}

/** What the other side's close means; undefined where it is in order. */
export function closeError(code, reason) {
  if (ORDERLY.includes(code)) return undefined
  if (code === LOST) {
    return Object.assign(new Error('the connection failed, or was cut'), { code: 'ECONNRESET' })
  }
  const message = `the other side closed the connection: ${code}${reason && `, '${printable(reason)}'`}`
  const known = CODES[code] ?? CODES[code - OWN]
  return known ? new ReplicError(known, message) : new Error(message) // 1001: it goes away
}

/** What differs between the kinds of sockets. */
export const KINDS = {
  ws: {
    binaryType: 'nodebuffer',
    send: (raw, bytes) => raw.send(bytes, { binary: true, compress: false }),
    close: (raw, code) => raw.close(code),
    buffered: (raw) => raw.bufferedAmount,
  },
  browser: {
    binaryType: 'arraybuffer',
    send: (raw, bytes) => raw.send(bytes),
    close: (raw, code) => raw.close(code === 1000 ? code : code + OWN),
    buffered: (raw) => raw.bufferedAmount,
  },
  bun: {
    binaryType: 'nodebuffer',
    send: (raw, bytes) => {
      if (raw.send(bytes, false) !== 0 || raw.readyState === CLOSED) return
      throw usage('Bun dropped a frame: its backpressureLimit is below that of bunHandlers()')
    },
    close: (raw, code) => raw.close(code),
    buffered: (raw) => raw.getBufferedAmount(),
  },
}

/** 'ws', 'browser' or 'bun'; undefined for what is no WebSocket. */
export function kindOfSocket(raw) {
  let kind
  guarded(
    () => {
      kind = kindByLooks(raw)
    },
    () => {}, // what cannot be looked at is none
  )
  return kind
}

function kindByLooks(raw) {
  if (typeof raw?.readyState !== 'number' || typeof raw.binaryType !== 'string') return undefined
  if (typeof raw.bufferedAmount !== 'number') {
    return typeof raw.getBufferedAmount === 'function' ? 'bun' : undefined
  }
  return typeof raw.on === 'function' ? 'ws' : 'browser'
}

// What ws finds wrong has codes of its own; a browser's kind of event may say nothing, and then the
// close that follows does.
export function told(error) {
  if (error?.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') {
    return new ReplicError('REPLIC_TOO_LARGE', error.message, { cause: error })
  }
  if (`${error?.code}`.startsWith('WS_ERR_')) {
    return new ReplicError('REPLIC_PROTOCOL', error.message, { cause: error })
  }
  return error instanceof Error && error.message ? error : undefined
}
