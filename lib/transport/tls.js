// TLS below the TCP transport, by node:tls: which of its options there are, what is told of the other
// side's certificate, and what its errors mean here.

import { createSecureContext } from 'node:tls'
import { ReplicError, usage } from '../base/errors.js'
import { isPlain, readOptions } from '../base/options.js'

const COMMON = [
  ...['ca', 'cert', 'key', 'passphrase', 'pfx', 'crl', 'rejectUnauthorized'],
  ...['minVersion', 'maxVersion', 'ciphers', 'sigalgs', 'ecdhCurve'],
]
const LISTEN = namesOf([...COMMON, 'requestCert', 'SNICallback', 'dhparam', 'honorCipherOrder'])
const CONNECT = namesOf([...COMMON, 'servername', 'checkServerIdentity'])

/** The check of an option `tls`; what is in it, listenTls() and connectTls() look at. */
export const tlsObject = {
  accepts: isPlain,
  wants: 'an object of options of node:tls',
  isHidden: true,
}

/** What node:tls needs for listening. Throws REPLIC_USAGE: unknown names, no certificate, one that does not fit. */
export function listenTls(given) {
  const options = read('listen', given, LISTEN)
  if (!options.pfx && !options.SNICallback && !(options.key && options.cert)) {
    throw usage('listen: tls needs key and cert, or pfx')
  }
  if (options.ca !== undefined && options.requestCert === undefined) {
    throw usage(
      'listen: tls has a ca, which is for the certificates of those who dial: say requestCert: true (they must show one) or false',
    )
  }
  return options
}

/** The same for dialing. */
export const connectTls = (given) => read('connect', given, CONNECT)

function read(where, given, names) {
  const options = readOptions(`${where}: tls`, given, names.defaults, names.checks)
  if (!options.key !== !options.cert) throw usage(`${where}: tls: key and cert belong together`)
  for (const name of Object.keys(options)) if (options[name] === undefined) delete options[name]
  try {
    createSecureContext(options)
  } catch (error) {
    const message = `${where}: tls: ${error.message}: key and cert are the texts of PEM files, and belong together`
    throw new ReplicError('REPLIC_USAGE', message, { cause: error })
  }
  return options
}

function namesOf(list) {
  const all = (value) => Object.fromEntries(list.map((name) => [name, value]))
  return { defaults: all(undefined), checks: all({ accepts: () => true }) } // node:tls checks the values
}

/** What authorize() is told: `certificate` as Node gives it, null where the other side has shown none. */
export function factsOf(socket) {
  const certificate = socket.getPeerCertificate?.() ?? {}
  return {
    isTrusted: socket.authorized,
    certificate: Object.keys(certificate).length > 0 ? certificate : null,
    protocol: socket.getProtocol(),
  }
}

/** Why who has dialed is refused; undefined where its certificate is as good as `requestCert` wants it. */
export function refusalOf(socket, { requestCert, rejectUnauthorized }) {
  if (!requestCert || rejectUnauthorized === false || socket.authorized) return undefined
  const { certificate } = factsOf(socket)
  const message = certificate
    ? `the certificate of the side that dials is not trusted (${socket.authorizationError}): have it signed by an authority of the listener's tls: { ca }`
    : 'the side that dials has shown no certificate: give its connect() tls: { cert, key }'
  return new ReplicError('REPLIC_AUTH', message)
}

const ALERT = /_ALERT_/
const OF_CERTIFICATES = /_ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/
const REMEDIES = {
  ERR_TLS_CERT_ALTNAME_INVALID: 'dial a name that is in it, or give one as tls: { servername }',
  CERT_HAS_EXPIRED: 'it has to be renewed',
  CERT_NOT_YET_VALID: 'compare the clocks',
}
const TRUST = 'if it is to be trusted, give the certificate of its authority as tls: { ca }'

/** An error of a connection that was dialed, in words that help; others are left as they are. */
export function explainDialed(error, socket, address) {
  const { code = '' } = error
  if (socket.authorizationError || code in REMEDIES) {
    const remedy = REMEDIES[code] ?? TRUST
    return auth(
      `the certificate of ${address} is not trusted: ${error.message} (${code}): ${remedy}`,
      error,
    )
  }
  if (OF_CERTIFICATES.test(code)) {
    return auth(
      `${address} refuses this side's certificate, or wants one (${code}): give tls: { cert, key } of an authority that it trusts`,
      error,
    )
  }
  if (code.startsWith('ERR_SSL_')) return protocol(`no TLS with ${address}`, error, 'listen()')
  if (code === 'ECONNRESET' && !socket.getCipher?.()?.name) {
    error.message += `: does ${address} listen with tls?`
  }
  return error
}

/** The same where the other side has dialed, and the handshake has failed. */
export function explainAccepted(error, linkTimeoutMs) {
  const { code = '' } = error
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') {
    const message = `no TLS handshake within ${linkTimeoutMs} ms`
    return new ReplicError('REPLIC_TIMEOUT', message, { cause: error })
  }
  if (OF_CERTIFICATES.test(code)) {
    return auth(`the side that dials does not trust this side's certificate (${code})`, error)
  }
  if (code.startsWith('ERR_SSL_')) return protocol('no TLS with who has dialed', error, 'connect()')
  const message = `${error.message}: the side that dials has left during the handshake, as one does that does not trust this side's certificate`
  return Object.assign(new Error(message, { cause: error }), { code: error.code })
}

const auth = (message, cause) => new ReplicError('REPLIC_AUTH', message, { cause })

function protocol(what, error, where) {
  const why = ALERT.test(error.code)
    ? 'there is no version, cipher or name that both sides accept'
    : `is tls missing in its ${where}?`
  return new ReplicError('REPLIC_PROTOCOL', `${what} (${error.code}): ${why}`, { cause: error })
}
