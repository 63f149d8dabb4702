// forget(): what others have said of themselves and of each other, and was kept.

import { FORGET, read } from './arguments.js'
import { ReplicError, usage } from './base/errors.js'

const FORGETTABLE = ['forks', 'pending', 'staged'] // as the core numbers them; 3: what is lost

/** The options of forget(), checked. Throws REPLIC_USAGE. */
export function readForget(options) {
  const given = read('forget', options, FORGET)
  const { origin, after } = given
  if (!FORGETTABLE.some((what) => given[what]) && origin === undefined)
    throw usage(`forget: say what, with one or more of ${FORGETTABLE.join(', ')}: true, or origin`)
  if (after !== undefined && origin === undefined)
    throw usage('forget: after which patch of whom? origin is missing')
  return given
}

/** Forgets what `given` names; returns how much of each there was. `call(promise)` counts a call of the writing queue. */
export async function forget(given, native, links, progress, call) {
  const { peerId = 0, origin, after } = given
  const forgotten = { forks: 0, pending: 0, staged: 0, lost: 0 }
  for (const [number, what] of FORGETTABLE.entries())
    if (given[what]) forgotten[what] = await call(native.forget(number, peerId, 0))
  if (origin !== undefined) {
    const from = after ?? progress.vector.get(origin) ?? 0
    forgotten.lost = await forgetLost(origin, from, native, links, call)
    progress.lose(origin, from)
  }
  return forgotten
}

function forgetLost(origin, after, native, links, call) {
  const [carrying] = links.carrying()
  if (carrying !== undefined) throw unknownYet(origin, carrying)
  return call(native.forget(FORGETTABLE.length, origin, after))
}

const unknownYet = (origin, peerId) =>
  new ReplicError(
    'REPLIC_BUSY',
    `forget: peer ${peerId} is sending a frame for longer than a heartbeat, and whether it brings patches of peer ` +
      `${origin} is not known: try again once it is here`,
  )
