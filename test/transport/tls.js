// TLS, for the contract: with certificates on both sides.

import { connect } from 'node:tls'
import { authority } from '../certificates.js'
import { streams } from './stream.js'

const certificates = {}

export const adapter = {
  ...streams({
    name: 'tls',
    module: import.meta.url,
    dial: ({ port }) => connect({ port, host: '127.0.0.1', ...certificates.connect }),
    ready: 'secureConnect',
    tls: () => certificates,
  }),

  start() {
    const { ca, sign } = authority()
    certificates.listen = { ca, requestCert: true, ...sign({ name: 'listener' }) }
    certificates.connect = { ca, ...sign({ name: 'dialer' }) }
  },
}
