// Buses, for the contract: one within the process, NATS and Redis. Whoever listens joins under a prefix of
// its own, which is the address; whoever connects joins under the same. One client of each server does
// for all of them, but for those whose connection is to be cut or stalled.

import { randomFrom } from '../../examples/demo/random.js'
import { bus } from '../../lib/transport/bus.js'
import { Line } from '../chaos/line.js'
import { until } from '../until.js'
import { SEED } from './line.js'

let prefixes = 0

/**
 * An adapter. `join(db, medium, options)` is a promise of what bus() gives, where `medium` is of this bus and
 * `medium.through(line)` the same with what is published sent over a Line.
 */
export const buses = ({ name, module, shared, join, ...rest }) => ({
  name,
  module,
  isOrdered: true,
  atOnce: 1, // a peer is on a bus once
  faults: ['loss', 'duplicate', 'delayMs', 'ordered'],
  ...rest,

  async listen(db, { at } = {}) {
    const prefix = at?.prefix ?? `contract.${++prefixes}`
    const joined = await join(db, shared(), { prefix })
    return { address: { prefix }, status: joined.status, close: () => joined.close() }
  },

  connect(db, { prefix, medium = shared }, { peerId: _, ...options } = {}) {
    const joining = Promise.resolve(medium()).then((each) => join(db, each, { prefix, ...options }))
    joining.catch(() => {}) // the replica was closed meanwhile
    return { close: () => joining.then((joined) => joined.close()).catch(() => {}) }
  },

  async badLine({ prefix }) {
    const line = new Line(randomFrom(SEED))
    return {
      address: { prefix, medium: () => shared().through(line) },
      counts: () => line.counts,
      set: (settings) => line.set(settings),
      close: () => line.clear(),
    }
  },

  /** Publishes what is no message; it has ended when both copies are counted as ignored. */
  stranger({ prefix }, listener) {
    const before = listener.status().ignored
    const { publish } = shared()
    return {
      write: (bytes) => [12, 'all'].map((whom) => publish(`${prefix}.${whom}`, bytes)),
      ended: until(() => listener.status().ignored >= before + 2),
      destroy: () => {},
    }
  },
  garbage: {
    nothing: Buffer.alloc(0),
    JSON: Buffer.from('{"hello":"world"}'),
    'the beginning of a message': Buffer.from('52420103', 'hex'),
    noise: Buffer.alloc(500_000, 0xa5),
  },
})

const DRIPPING = 'a message comes whole or not at all'
const TWICE = 'whoever joins a bus twice is refused with REPLIC_PEER: one link is all there is'

// ---- within the process ----

const listeners = new Map() // subject -> Set
const publish = (subject, bytes) => {
  for (const listener of listeners.get(subject) ?? []) queueMicrotask(() => listener(bytes))
}
const subscribe = (subject, listener) => {
  const all = listeners.get(subject) ?? new Set()
  listeners.set(subject, all.add(listener))
  return () => all.delete(listener)
}
const through = (line) => ({
  subscribe,
  publish: (subject, bytes) => line.carry(Buffer.from(bytes), (each) => publish(subject, each)),
})

export const adapter = buses({
  name: 'bus',
  module: import.meta.url,
  shared: () => ({ publish, subscribe, through }),
  join: (db, { publish, subscribe }, options) =>
    bus(db, { publish, subscribe, retryMinMs: 1, retryMaxMs: 20, ...options }),
  lacks: {
    line: 'calls within the process: there is nothing in between',
    cut: 'calls within the process: there is nothing in between',
    standby: TWICE,
    dripping: DRIPPING,
  },
})

/** What NATS and Redis lack. */
export const lacks = { standby: TWICE, dripping: DRIPPING }
