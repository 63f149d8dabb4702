// A secret, as the application gives it, becomes a key of 32 bytes. People choose texts that can be
// guessed, and who has seen one handshake can try guesses on a machine of his own: so each guess costs
// him scrypt (RFC 7914), 32 MiB and some fifty milliseconds. There is no salt that both sides could
// know before they have spoken, so it is the package's name, and a strong secret is what protects.

import { createHash, scrypt } from 'node:crypto'
import { promisify } from 'node:util'

const SALT = 'replic-sqlite secret'
const COST = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }
const KEY_BYTES = 32

const stretch = promisify(scrypt)
const made = new Map() // digest of a secret -> promise of its key: a process has few, and opens often

/** The key of a secret: a promise of 32 bytes, the same for a text and for its bytes in UTF-8. */
export function keyOf(secret) {
  const digest = createHash('sha256').update(secret).digest('base64')
  const known = made.get(digest)
  if (known) return known
  const key = stretch(secret, SALT, KEY_BYTES, COST)
  made.set(digest, key)
  key.catch(() => made.delete(digest)) // no memory for it, say: the next one tries again
  return key
}

/** The keys of the option `secret`: none, one, or a list of which the first is used to dial. */
export function keysOf(secret) {
  const secrets = secret === undefined ? [] : Array.isArray(secret) ? secret : [secret]
  return Promise.all(secrets.map(keyOf))
}
