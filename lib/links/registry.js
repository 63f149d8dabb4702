// Which links a replica has: for the transports, which know the replica only by what the application hands them.

import { ReplicError, usage } from '../base/errors.js'
import { kindOf } from '../base/options.js'

const linksByReplica = new WeakMap()

/** Makes `links` those of `db`. */
export const register = (db, links) => linksByReplica.set(db, links)

/** The links of a replica. Throws REPLIC_USAGE where `db` is none, and REPLIC_CLOSED where it closes. */
export function linksOf(db) {
  const links = linksByReplica.get(db)
  if (!links) throw usage(`a Replica is needed, not ${kindOf(db)}`)
  if (links.closing) throw closed()
  return links
}

export const closed = () =>
  new ReplicError('REPLIC_CLOSED', 'the replica is closed: Replica.open() opens the file again')
