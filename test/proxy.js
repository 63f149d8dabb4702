// A TCP proxy that a test can cut: between a dialing peer and a listening one.

import { connect, createServer } from 'node:net'
import { onTestFinished } from 'vitest'

/** Listens on a port of its own and passes everything on to `port`. Gives { port, cut(), refuse(bool) }. */
export async function startProxy(port) {
  const pairs = new Set()
  let refusing = false
  const server = createServer((near) => {
    if (refusing) return near.destroy()
    const far = connect(port, '127.0.0.1')
    const pair = [near, far]
    pairs.add(pair)
    const end = () => {
      pairs.delete(pair)
      for (const socket of pair) socket.destroy()
    }
    for (const socket of pair) socket.on('error', end).on('close', end)
    near.pipe(far)
    far.pipe(near)
  })
  const cut = () => {
    for (const pair of pairs) for (const socket of pair) socket.resetAndDestroy()
  }
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
    cut()
  })
  return {
    port: server.address().port,
    /** Breaks all connections, without a proper end. */
    cut,
    /** Whether new connections are broken at once. */
    refuse: (value) => {
      refusing = value
    },
  }
}
