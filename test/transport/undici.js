// WebSocket as a browser has it, for the contract.

import { WebSocket } from 'undici'
import { adapter as ws } from './websocket.js'

export const adapter = {
  ...ws,
  name: 'websocket, dialed by undici',
  module: import.meta.url,
  connect: (db, address, options) => ws.connect(db, address, { WebSocket, ...options }),
  patches: 10_000,
  stranger: undefined,
  lacks: {
    stranger: 'nothing of it depends on who else dials',
    dripping: 'nothing of it depends on who else dials',
  },
}
