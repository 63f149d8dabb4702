// What every transport must do, whatever it runs over, on Node and on Bun. A test file calls
// contract(adapter), where
//
//   name, module             for messages; the adapter's own import.meta.url (a child imports it)
//   listen(db, { at })       -> { address, close() }; `at`: the address of an earlier listener
//   connect(db, address, { peerId }) -> { close() }; dials again soon
//   isOrdered                frames arrive in order, and none is lost while a connection lasts
//   authCodes                of the 'down' event after a wrong secret; default REPLIC_AUTH on both sides
//   patches, largeBytes      per direction; of one patch; defaults 100,000 and 20 MB
//   drops, atOnce            connections opened and dropped, and how many at a time; defaults 10,000 and 50
//   survivesCuts             a link outlives its connections
//   start(), stop()          of a server in between; optional
//   lacks                    { name of one of the following: why there is none }
//   line(address)            -> { address, stall(bool), cut(), refuse(bool), close() }
//   badLine(address)         -> { address, counts(): { carried, lost, ... }, set(settings), close() }: settings
//                            of a Line (test/chaos/line.js), of which `faults` are what it can do
//   stranger(address, listener) -> { write(bytes), ended, destroy() }: below the transport, with
//     garbage, dripping      { name: bytes } that it writes; `ended`: when it has been refused
//
// The tests are in parts: data.js, refusals.js, lines.js, strangers.js. What is counted is counted in
// frames and bytes; nothing is timed.

import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { eventOf, openReplica } from '../helpers.js'
import { data } from './data.js'
import { lines } from './lines.js'
import { strangerFrom } from './raw.js'
import { refusals } from './refusals.js'
import { strangers } from './strangers.js'

export const SECRET = 'a secret of more than sixteen bytes'
export const isUp = ({ state }) => state === 'up'
export const isDown = ({ state }) => state === 'down'
export const many = (n, from = 0, text = 'x') =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text }))
export const open = (peerId, options) => openReplica({ peerId, ...options })

const OPTIONAL = ['line', 'cut', 'standby', 'badLine', 'stranger', 'dripping']

export function contract(adapter) {
  const has = (name) => adapter.lacks?.[name] === undefined
  const closing = (closeable) => {
    onTestFinished(() => closeable.close())
    return closeable
  }
  const tools = {
    has,
    listening: async (db, options) => closing(await adapter.listen(db, options)),
    connecting: (db, address, options) => closing(adapter.connect(db, address, options)),
    lineTo: async (address) => closing(await adapter.line(address)),
    badLineTo: async (address) => closing(await adapter.badLine(address)),

    /** Links both; resolves when they are up. */
    async linked(a, b) {
      const listener = await tools.listening(b)
      const up = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
      const connection = tools.connecting(a, listener.address)
      return { listener, connection, events: await Promise.all(up) }
    },

    /** Who speaks the transport and nothing above it: see raw.js. */
    async rawTo(address, { peerId = 11, ...options } = {}) {
      const stranger = strangerFrom(await open(peerId, options))
      onTestFinished(() => stranger.close())
      return () => stranger.connect(adapter, address)
    },

    /** Another peer finds everything as it should be. */
    async stillServes(b, address, options) {
      const c = await open(13, options)
      tools.connecting(c, address)
      const token = await c.upsert('note', { id: 1000 })
      await b.waitFor(token, 60_000)
    },
  }

  describe(`${adapter.name} keeps the contract:`, () => {
    beforeAll(() => adapter.start?.())
    afterAll(() => adapter.stop?.())

    it('has all that is asked for, or says why not', () => {
      const { lacks = {} } = adapter
      for (const [name, why] of Object.entries(lacks)) {
        expect(OPTIONAL).toContain(name)
        expect(why).toMatch(/.{10}/)
      }
      for (const name of ['line', 'badLine', 'stranger']) {
        expect([name, typeof adapter[name]]).toEqual([name, has(name) ? 'function' : 'undefined'])
      }
    })

    data(adapter, tools)
    refusals(adapter, tools)
    strangers(adapter, tools)
    lines(adapter, tools)
  })
}
