// What lies below a transport that runs over TCP, for its adapter: a line that can be cut and stalled,
// and a stranger who sends bytes. No test runner, so that children can import it.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { randomFrom } from '../../examples/demo/random.js'
import { Line } from '../chaos/line.js'

export const SEED = Number(process.env.REPLIC_SEED ?? 5)

/**
 * A line to 127.0.0.1:`port`. Gives { port, cut(), refuse(bool), stall(bool), cutAfter(list), close() }.
 */
export async function openLine(port) {
  const pairs = new Set()
  let refusing = false
  let stalled = false
  let limits = []
  const settle = (sockets) => {
    for (const socket of sockets) stalled ? socket.pause() : socket.resume()
  }
  const server = createServer((near) => {
    if (refusing) return near.destroy()
    const far = connect(port, '127.0.0.1')
    const pair = [near, far]
    pairs.add(pair)
    const end = () => {
      pairs.delete(pair)
      for (const socket of pair) socket.destroy()
    }
    let left = limits.shift() ?? Infinity
    for (const [i, socket] of pair.entries()) {
      const other = pair[1 - i]
      socket.setNoDelay(true).on('error', end).on('close', end)
      socket.on('end', () => other.end())
      socket.on('data', (chunk) => {
        if (!other.write(chunk.subarray(0, left))) {
          socket.pause()
          other.once('drain', () => settle([socket]))
        }
        left -= chunk.length
        if (left <= 0) for (const each of pair) each.resetAndDestroy()
      })
    }
    settle(pair)
  })
  const cut = () => {
    for (const pair of pairs) for (const socket of pair) socket.resetAndDestroy()
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: server.address().port,
    cut,
    refuse: (value) => {
      refusing = value
    },
    stall: (value) => {
      stalled = value
      for (const pair of pairs) settle(pair)
    },
    cutAfter: (list) => {
      limits = [...list]
    },
    close: () => {
      server.close()
      cut()
    },
  }
}

/**
 * A bad line to 127.0.0.1:`port` for any stream: it delays, and as a stream cannot lose anything and go
 * on, it breaks the connection at what would be lost. { port, counts(), set(settings), close() }.
 */
export async function openBadLine(port) {
  const directions = [new Line(randomFrom(SEED)), new Line(randomFrom(SEED + 1))]
  const pairs = new Set()
  const server = createServer((near) => {
    const pair = [near, connect(port, '127.0.0.1')]
    pairs.add(pair)
    const end = () => {
      pairs.delete(pair)
      for (const socket of pair) socket.destroy()
    }
    for (const [i, socket] of pair.entries()) {
      const other = pair[1 - i]
      socket.setNoDelay(true).on('error', end).on('close', end)
      socket.on('data', (chunk) => {
        const [delay] = directions[i].draw()
        if (delay === undefined) end()
        else directions[i].put(chunk, delay, (bytes) => other.destroyed || other.write(bytes))
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: server.address().port,
    counts: () => sum(directions.map(({ counts }) => counts)),
    set: (settings) => {
      for (const direction of directions) direction.set(settings)
    },
    close: () => {
      server.close()
      for (const direction of directions) direction.clear()
      for (const pair of pairs) for (const socket of pair) socket.destroy()
    },
  }
}

const sum = ([one, other]) =>
  Object.fromEntries(Object.entries(one).map(([name, n]) => [name, n + other[name]]))

/** A stream that somebody opens who knows nothing of us: { write(bytes), ended, destroy() }, after `ready`. */
export async function openStranger(socket, ready) {
  const ended = new Promise((resolve) => socket.on('error', () => {}).on('close', resolve))
  await Promise.race([once(socket, ready).catch(() => {}), ended])
  socket.resume()
  return {
    write: (bytes) => !socket.destroyed && socket.write(bytes),
    ended,
    destroy: () => socket.destroy(),
  }
}
