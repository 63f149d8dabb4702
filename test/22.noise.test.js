// The Noise handshake against published vectors, and the sealed frames that its keys make.

import { describe, expect, it } from 'vitest'
import { decrypt, encrypt, Noise, rekey } from '../lib/links/noise.js'
import { isSealed, SEAL_BYTES, Seal } from '../lib/links/seal.js'
import { keyOf } from '../lib/links/secret.js'

const hex = (text) => Buffer.from(text, 'hex')
const NOTHING = Buffer.alloc(0)
const SCRYPTED = '915bc5be3abe20bc9aa14deb9f479dac06a1193a29313b71cb9ba57765832b2e'

// Noise_NNpsk0_25519_AESGCM_SHA256 of cacophony's vectors, which most libraries of Noise are tested with.
const VECTOR = {
  prologue: '4a6f686e2047616c74',
  psk: '54686973206973206d7920417573747269616e20706572737065637469766521',
  initiator: '893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a',
  responder: 'bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b',
  hash: '9f3b1f9afd7767767b5b9d1069844a6154fdbdcc36dfb3e31c0fffc5c973d530',
  messages: [
    [
      '4c756477696720766f6e204d69736573',
      'ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79447c37a89fc17813788d30df2d59501d6066f5f8aecc3406bbd9829f2d24a531b1',
    ],
    [
      '4d757272617920526f746862617264',
      '95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088432f29d79368ef9de4e1ae7a362fb05bf0ad668e026bf5714554497b3a720461',
    ],
    ['462e20412e20486179656b', '7c01e898a6201f36aecee532e29cd0b7f8ffa29d3366ad0dce39a6'],
    ['4361726c204d656e676572', 'a9ff535aace3db6a1da1a7fb00fe2de2622bb373abad9fb42c00e0'],
    [
      '4a65616e2d426170746973746520536179',
      '6cfc49a3e65472edc2d0152abe5ce950170a8a47c959f30bd48b5f0aacf29adbfd',
    ],
    [
      '457567656e2042f6686d20766f6e2042617765726b',
      '9bc86e6d974ed21ba04604a94aa68de21677eb409ead070c0cd569b069ee19ba142aa4c1a9',
    ],
  ],
}

const side = (isInitiator, more) =>
  new Noise({ psk: hex(VECTOR.psk), isInitiator, prologue: hex(VECTOR.prologue), ...more })

describe('Noise', () => {
  it('says what the published vectors say', () => {
    const one = side(true, { ephemeral: hex(VECTOR.initiator) })
    const two = side(false, { ephemeral: hex(VECTOR.responder) })
    const [[first, sealedFirst], [second, sealedSecond], ...transport] = VECTOR.messages
    expect(one.write(hex(first)).toString('hex')).toBe(sealedFirst)
    expect(two.read(hex(sealedFirst)).toString('hex')).toBe(first)
    expect(two.write(hex(second)).toString('hex')).toBe(sealedSecond)
    expect(one.read(hex(sealedSecond)).toString('hex')).toBe(second)
    for (const { handshakeHash } of [one, two])
      expect(handshakeHash.toString('hex')).toBe(VECTOR.hash)
    for (const [i, [plain, sealed]] of transport.entries()) {
      const [from, to] = i % 2 ? [two, one] : [one, two]
      const n = i >> 1
      const made = Buffer.concat(encrypt(from.keys.send, n, NOTHING, hex(plain)))
      expect(made.toString('hex')).toBe(sealed)
      expect(decrypt(to.keys.receive, n, NOTHING, made)).toEqual(hex(plain))
    }
  })

  it('has other keys each time', () => {
    const keys = new Set()
    for (let i = 0; i < 8; i++) {
      const [one, two] = [side(true), side(false)]
      two.read(one.write(NOTHING))
      one.read(two.write(NOTHING))
      expect(one.keys.send).toEqual(two.keys.receive)
      expect(one.keys.receive).toEqual(two.keys.send)
      for (const key of Object.values(one.keys)) keys.add(key.toString('hex'))
    }
    expect(keys.size).toBe(16)
  })

  it('makes no key for who has another psk', () => {
    const message = side(true, { psk: Buffer.alloc(32) }).write(NOTHING)
    const noKey = Buffer.alloc(1) // whoever makes a key of that throws
    expect(side(false, { ephemeral: noKey }).read(message)).toBeUndefined()
    expect(() => side(false, { ephemeral: noKey }).write(NOTHING)).toThrow()
  })

  it('takes no public key of small order (RFC 7748, section 6.1)', () => {
    const one = side(true)
    one.write(NOTHING)
    expect(one.read(Buffer.alloc(48))).toBeUndefined()
  })

  it('makes a key of which the one before is not known', () => {
    const key = hex(VECTOR.psk)
    // ENCRYPT(k, 2^64 - 1, "", zeros) without its tag: the first 32 bytes of the key stream
    expect(rekey(key)).toHaveLength(32)
    expect(rekey(key)).not.toEqual(key)
    expect(rekey(rekey(key))).not.toEqual(rekey(key))
  })
})

describe('a sealed link', () => {
  const EVERY = 4 // frames between two keys, here

  function pair() {
    const [one, two] = [side(true), side(false)]
    two.read(one.write(NOTHING))
    one.read(two.write(NOTHING))
    return [new Seal(one.keys, EVERY), new Seal(two.keys, EVERY)]
  }
  const frameOf = (n) => Buffer.from(`frame ${n}`)

  it('carries frames, whatever is lost on the way, over many keys', () => {
    const [a, b] = pair()
    for (let n = 0; n < 100; n++) {
      const sealed = a.seal(frameOf(n))
      expect(isSealed(sealed)).toBe(true)
      expect(sealed).toHaveLength(frameOf(n).length + SEAL_BYTES)
      if (n % 3 > 0) expect(b.open(sealed)).toEqual(frameOf(n))
    }
  })

  it('takes frames that were overtaken, also by those of the next key, and each once', () => {
    const [a, b] = pair()
    const sealed = Array.from({ length: 6 }, (_, n) => a.seal(frameOf(n)))
    for (const n of [1, 0, 5, 2, 4, 3]) expect(b.open(sealed[n])).toEqual(frameOf(n))
    for (const bytes of sealed) expect(b.open(bytes)).toBeNull()
  })

  it('takes none of keys before the last, and none from far ahead', () => {
    const [a, b] = pair()
    const sealed = Array.from({ length: 4 * EVERY }, (_, n) => a.seal(frameOf(n)))
    expect(b.open(sealed.at(-1))).toBeUndefined()
    for (const n of [4, 9]) expect(b.open(sealed[n])).toEqual(frameOf(n))
    expect(b.open(sealed[0])).toBeUndefined()
  })

  it('takes nothing of which a bit was changed, and goes on', () => {
    const [a, b] = pair()
    const sealed = a.seal(frameOf(0))
    for (let bit = 16; bit < 8 * sealed.length; bit++) {
      const changed = Buffer.from(sealed)
      changed[bit >> 3] ^= 1 << (bit & 7)
      expect(b.open(changed)).toBeUndefined()
    }
    for (let n = 0; n < sealed.length; n++) expect(b.open(sealed.subarray(0, n))).toBeUndefined()
    expect(b.open(sealed)).toEqual(frameOf(0))
  })

  it('takes nothing of another link, nor what it has sent itself', () => {
    const [a, b] = pair()
    const [other] = pair()
    expect(b.open(other.seal(frameOf(0)))).toBeUndefined()
    const own = a.seal(frameOf(0))
    expect(a.open(own)).toBeUndefined()
  })
})

describe('a secret', () => {
  it('is the same key as a text and as bytes, and made once', async () => {
    const secret = 'sixteen bytes or more'
    const key = await keyOf(secret)
    expect(key).toHaveLength(32)
    expect(await keyOf(Buffer.from(secret))).toBe(key)
    expect(await keyOf(`${secret}!`)).not.toEqual(key)
  })

  it('is stretched (RFC 7914)', async () => {
    // python3 -c "import hashlib; print(hashlib.scrypt(b'sixteen bytes or more', salt=b'replic-sqlite secret', n=2**15, r=8, p=1, maxmem=2**26, dklen=32).hex())"
    expect((await keyOf('sixteen bytes or more')).toString('hex')).toBe(SCRYPTED)
  })
})
