// addRemotePeer(): a connection that the application has made becomes a link.

import { checkSocket } from './links/socket.js'
import { FrameSocket } from './transport/websocket-frames.js'
import { kindOfSocket } from './transport/websocket-kinds.js'

/** A link over `socket`: a WebSocket, or one as links/socket.js describes it. Throws REPLIC_USAGE and REPLIC_BUSY. */
export function addSocket(links, peerId, socket, { onUnknownMessage }) {
  const isWebSocket = kindOfSocket(socket) !== undefined
  if (!isWebSocket) checkSocket('addRemotePeer', socket)
  const full = links.roomError(false)
  if (full) throw full // before anything listens to it
  const frames = isWebSocket ? new FrameSocket(links.options, onUnknownMessage).use(socket) : socket
  const transport = socket.constructor?.name ?? 'socket'
  return links.add(frames, { peerId, transport })
}
