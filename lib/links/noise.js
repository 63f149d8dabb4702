// The Noise handshake NNpsk0 and the keys it leaves, with node:crypto. The Noise Protocol Framework,
// revision 34 (noiseprotocol.org/noise.html); the names of its sections are those of the functions here.
//
//   Noise_NNpsk0_25519_AESGCM_SHA256
//     -> psk, e        the side that dials: a fresh key, and a payload that only the psk opens
//     <- e, ee         the other one: a fresh key; from here on both have keys that nobody else has,
//                      also who learns the psk later
//
// The first message can be a recording. So the side that answers knows that the other one has the psk
// when it has opened something that was sealed with the keys of the end.

import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
} from 'node:crypto'

const NAME = 'Noise_NNpsk0_25519_AESGCM_SHA256' // AES-GCM, as Bun's node:crypto has no ChaCha20
const KEY_BYTES = 32
export const TAG_BYTES = 16
const CIPHER = 'aes-256-gcm'
const WITH_TAG = { authTagLength: TAG_BYTES }
const EMPTY = Buffer.alloc(0)
const ZEROS = Buffer.alloc(KEY_BYTES)
// What stands before the 32 bytes of a key in DER (RFC 8410).
const SPKI = Buffer.from('302a300506032b656e032100', 'hex')
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')

const hash = (...parts) => {
  const sha = createHash('sha256')
  for (const part of parts) sha.update(part)
  return sha.digest()
}

/** HKDF(chaining key, input) as `n` outputs of 32 bytes: RFC 5869 without info. */
function hkdf(key, input, n) {
  const bytes = Buffer.from(hkdfSync('sha256', input, key, EMPTY, n * KEY_BYTES))
  return Array.from({ length: n }, (_, i) => bytes.subarray(i * KEY_BYTES, (i + 1) * KEY_BYTES))
}

/** Four zero bytes, and the number in eight, big-endian. `n` below 2^53. */
function nonceOf(n) {
  const nonce = Buffer.alloc(12)
  nonce.writeUInt32BE(Math.floor(n / 2 ** 32), 4)
  nonce.writeUInt32BE(n % 2 ** 32, 8)
  return nonce
}

/** ENCRYPT(k, n, ad, plaintext): the ciphertext and its tag, as parts to join. */
export function encrypt(key, n, ad, plaintext) {
  const cipher = createCipheriv(CIPHER, key, nonceOf(n), WITH_TAG)
  cipher.setAAD(ad, { plaintextLength: plaintext.length })
  const text = cipher.update(plaintext)
  cipher.final()
  return [text, cipher.getAuthTag()]
}

/** DECRYPT(k, n, ad, bytes): the plaintext; undefined where the key, `ad` or a bit of it is another. */
export function decrypt(key, n, ad, bytes) {
  if (bytes.length < TAG_BYTES) return undefined
  const end = bytes.length - TAG_BYTES
  const decipher = createDecipheriv(CIPHER, key, nonceOf(n), WITH_TAG)
  decipher.setAAD(ad, { plaintextLength: end })
  decipher.setAuthTag(bytes.subarray(end))
  const plaintext = decipher.update(bytes.subarray(0, end))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  return plaintext
}

/** REKEY(k): a key from which the one before cannot be computed. */
export function rekey(key) {
  const cipher = createCipheriv(
    CIPHER,
    key,
    Buffer.from('00000000ffffffffffffffff', 'hex'),
    WITH_TAG,
  )
  return cipher.update(ZEROS)
}

/** A key pair: { privateKey, bytes (the public one's 32) }. `secret`: its 32 bytes, for test vectors. */
function keyPair(secret) {
  const privateKey = secret
    ? createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: 'der', type: 'pkcs8' })
    : generateKeyPairSync('x25519').privateKey
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
  return { privateKey, bytes: spki.subarray(SPKI.length) }
}

/** DH(key pair, public key); undefined for a point of small order, which the system's library refuses. */
function dh({ privateKey }, bytes) {
  try {
    const key = Buffer.concat([SPKI, bytes])
    return diffieHellman({
      privateKey,
      publicKey: createPublicKey({ key, format: 'der', type: 'spki' }),
    })
  } catch {
    return undefined
  }
}

/**
 * One side of one handshake. The side that dials calls write() and then read(), the other one read() and
 * then write(); then both have `keys`. `psk` is of 32 bytes; `prologue` is what both must have seen alike.
 */
export class Noise {
  #psk
  #given // for test vectors: the 32 bytes of this side's key
  #made
  #theirs // the other side's public key
  #chainingKey
  #hash
  #key
  #n = 0
  #isInitiator

  constructor({ psk, isInitiator, prologue, ephemeral }) {
    this.#psk = psk
    this.#isInitiator = isInitiator
    this.#given = ephemeral
    this.#chainingKey = this.#hash = Buffer.from(NAME) // as it is, as it is as long as a hash
    this.#mixHash(prologue)
  }

  // Made when it is needed, as it takes longer than to find out that the other side has another psk.
  get #ephemeral() {
    this.#made ??= keyPair(this.#given)
    return this.#made
  }

  /** This side's public key, as it goes over the line. */
  get publicKey() {
    return this.#ephemeral.bytes
  }

  /** The hash of all that was said, equal on both sides; in the end it names the link (section 11.2). */
  get handshakeHash() {
    return this.#hash
  }

  /** { send, receive }: two keys of 32 bytes, when the handshake is complete (Split). */
  get keys() {
    const [first, second] = hkdf(this.#chainingKey, EMPTY, 2)
    return this.#isInitiator ? { send: first, receive: second } : { send: second, receive: first }
  }

  /** This side's message: its public key, and the payload, sealed. undefined if the other's key is no key. */
  write(payload) {
    if (this.#isInitiator) this.#mixKeyAndHash(this.#psk)
    this.#mixEphemeral(this.#ephemeral.bytes)
    if (!this.#isInitiator && !this.#mixSecret()) return undefined
    const sealed = Buffer.concat(encrypt(this.#key, this.#n++, this.#hash, payload))
    this.#mixHash(sealed)
    return Buffer.concat([this.#ephemeral.bytes, sealed])
  }

  /** The payload of the other side's message; undefined where it was made with another psk, or changed. */
  read(message) {
    if (message.length < KEY_BYTES + TAG_BYTES) return undefined
    if (!this.#isInitiator) this.#mixKeyAndHash(this.#psk)
    this.#theirs = Buffer.from(message.subarray(0, KEY_BYTES))
    this.#mixEphemeral(this.#theirs)
    if (this.#isInitiator && !this.#mixSecret()) return undefined
    const sealed = message.subarray(KEY_BYTES)
    const payload = decrypt(this.#key, this.#n++, this.#hash, sealed)
    if (payload) this.#mixHash(sealed)
    return payload
  }

  // Token e; with a psk the public key goes into the chaining key too (section 9.2).
  #mixEphemeral(bytes) {
    this.#mixHash(bytes)
    this.#mixKey(bytes)
  }

  // Token ee.
  #mixSecret() {
    const shared = dh(this.#ephemeral, this.#theirs)
    if (shared) this.#mixKey(shared)
    return shared !== undefined
  }

  #mixHash(bytes) {
    this.#hash = hash(this.#hash, bytes)
  }

  #mixKey(input) {
    ;[this.#chainingKey, this.#key] = hkdf(this.#chainingKey, input, 2)
    this.#n = 0
  }

  #mixKeyAndHash(input) {
    const [chainingKey, mixed, key] = hkdf(this.#chainingKey, input, 3)
    this.#chainingKey = chainingKey
    this.#mixHash(mixed)
    this.#key = key
    this.#n = 0
  }
}
