// TCP, for the contract.

import { connect } from 'node:net'
import { streams } from './stream.js'

export const adapter = streams({
  name: 'tcp',
  module: import.meta.url,
  dial: ({ port }) => connect({ port, host: '127.0.0.1', noDelay: true }),
  ready: 'connect',
})
