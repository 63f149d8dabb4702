// replic-sqlite serve FILE --listen URL --peer URL

import { existsSync } from 'node:fs'
import { createServer } from 'node:http'
import { MAX_PEER_ID } from '../base/options.js'
import { METRICS_CONTENT_TYPE } from '../metrics.js'
import { Replica } from '../replica.js'
import { Browsers, headersOf } from '../transport/browsers.js'
import { EXIT, existing, integer, Mistake, output, pathOf, print, toJson } from './command.js'
import { whenNpmEnds } from './npm.js'
import * as peers from './peers.js'

export const help = `replic-sqlite serve FILE [--listen URL]... [--peer URL]... [options]

A peer without code: opens FILE, accepts and dials other peers, and hands on what they write. Its
tables are those in the file; changes of others are kept and handed on too. Runs until SIGINT or
SIGTERM, or until the npx or npm that has started it ends, then closes in order.

  --listen URL         accept peers: tcp://HOST:PORT, tls://, ws://HOST:PORT[/PATH], wss://,
                       udp:// (port 0: any free one; it is printed). May be given several times
  --peer URL           dial a peer, again and again: tcp://, tls://, ws://, wss://, http://, https://,
                       udp://
  --metrics URL        serve /metrics (OpenMetrics) and /status (JSON) at http://HOST:PORT
  --host NAME          a name under which ws:// or --metrics is reached; .NAME: and those below it. Addresses,
                       localhost and names without a dot need not be given, nor any for wss:// or with a secret
  --origin URL         let pages of it in a browser open ws:// and wss://; default: none
  --create             create FILE where it does not exist
  --peer-id N          the peerId; default: the one in the file, drawn at random for a new one
  --flush-ms N         when it ends, wait for at most N ms until all peers have everything (default 5000)
${peers.LINK_HELP}  --json               events as lines of JSON
`
export const options = {
  listen: { type: 'string', multiple: true },
  peer: { type: 'string', multiple: true },
  metrics: { type: 'string' },
  host: { type: 'string', multiple: true },
  origin: { type: 'string', multiple: true },
  create: { type: 'boolean' },
  'peer-id': { type: 'string' },
  'flush-ms': { type: 'string' },
  ...peers.LINK_OPTIONS,
}
export const files = [1, 1]

export async function run({ values, files: [file], json }) {
  const wanted = readArguments(values)
  const path = values.create ? pathOf('serve', file) : existingOrHint(file)
  const tell = teller(json)
  const db = await Replica.open(path, { peerId: wanted.peerId, secret: wanted.secret })
  db.on('link', tell.link)
  db.on('error', tell.error)
  const end = toldToEnd()
  const open = []
  let hasServed = false
  const close = async () => {
    const result = await db.close({ flushMs: wanted.flushMs })
    if (hasServed) tell.closed(result)
    await Promise.all(open.map((each) => each.close()))
  }
  try {
    for (const url of wanted.listen) {
      const listener = await peers.listenAt('serve', db, url, wanted)
      open.push(listener)
      tell.listening(listener.url, url, wanted.secret !== undefined)
    }
    if (wanted.metrics) open.push(await serveMetrics(db, wanted, tell))
    for (const url of wanted.dialed) await peers.dial(db, url, wanted.tls, {})
    tell.ready(db.status())
    tell.ending(await end)
    hasServed = true
  } finally {
    await close()
  }
}

function existingOrHint(file) {
  const path = pathOf('serve', file)
  if (!existsSync(path)) {
    throw new Mistake(`serve: there is no file ${path}; --create makes one`)
  }
  return existing('serve', file)
}

function readArguments(values) {
  const parseAll = (option, schemes) =>
    (values[option] ?? []).map((text) => peers.parseUrl('serve', `--${option}`, text, schemes))
  const wanted = {
    listen: parseAll('listen', peers.LISTENED),
    dialed: parseAll('peer', peers.DIALED),
    metrics: values.metrics && peers.parseUrl('serve', '--metrics', values.metrics, ['http']),
    secret: peers.secretOf('serve', values),
    tls: peers.tlsOf('serve', values),
    browsers: peers.browsersOf('serve', values),
    peerId: integer('serve', 'peer-id', values['peer-id'], 1, MAX_PEER_ID),
    flushMs: integer('serve', 'flush-ms', values['flush-ms'], 0, 2 ** 31 - 1) ?? 5000,
  }
  if (wanted.listen.length === 0 && wanted.dialed.length === 0) {
    throw new Mistake("serve: give --listen, --peer or both; see 'serve --help'")
  }
  return wanted
}

async function serveMetrics(db, { metrics: url, browsers }, tell) {
  const pages = new Browsers(browsers, () => false) // no secret is asked for here
  const server = createServer((request, response) => {
    const refusal = pages.refusal({ header: headersOf(request) })
    if (refusal) {
      response.writeHead(403, { 'Content-Type': 'text/plain; charset=utf-8' })
      response.end(`replic-sqlite: ${refusal.message}: see --host\n`)
    } else if (request.url === '/metrics') {
      response.setHeader('Content-Type', METRICS_CONTENT_TYPE)
      response.end(db.metrics())
    } else if (request.url === '/status') {
      response.setHeader('Content-Type', 'application/json')
      response.end(toJson(db.status()))
    } else {
      response.writeHead(404).end('there is /metrics, and /status\n')
    }
  })
  try {
    await peers.listening(server, url)
  } catch (error) {
    throw peers.explained('serve', url, error)
  }
  const { address, port } = server.address()
  tell.metrics(`http://${peers.bracketed(address)}:${port}/metrics`)
  return {
    close: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(resolve))
    },
  }
}

const AGAIN_MS = 1000

// Resolves with what ends it. A signal that comes again ends it at once, but not the same one by another way: of
// Ctrl-C the terminal tells all processes, and npm what it has started.
function toldToEnd() {
  return new Promise((resolve) => {
    let first
    const told = (what) => {
      first ??= performance.now()
      if (performance.now() - first > AGAIN_MS) process.exit(EXIT.failed)
      resolve(what)
    }
    for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => told(name))
    whenNpmEnds(() => resolve('npm has ended'))
    output.ended = () => resolve('nobody reads the output')
  })
}

// What happens, as lines: JSON or text.
function teller(json) {
  const say = (event, text) => print(json ? toJson(event) : text)
  return {
    listening: (url, asked, hasSecret) => {
      say({ event: 'listening', url }, `listening on ${url}`)
      const isWeb = /^wss?:$/.test(asked.protocol) // a page in a browser of this machine can be led there
      if (hasSecret || (peers.isLoopback(asked) && !isWeb)) return
      process.stderr.write(
        `replic-sqlite: warning: whoever reaches ${url} can read and write everything: give --secret-env or --secret-file\n`,
      )
    },
    metrics: (url) => say({ event: 'metrics', url }, `metrics at ${url}`),
    ready: ({ peerId, path, tables }) =>
      say(
        { event: 'ready', peerId, path, tables },
        `peer ${peerId} serves ${path} (tables: ${tables.join(', ') || 'none'})`,
      ),
    link: (event) => {
      const { peerId, state, transport, address, code, reason, count } = event
      const who = `${peerId === null ? 'somebody' : `peer ${peerId}`} over ${transport} ${address ?? ''}`
      const times = count > 1 ? `, the last of ${count} such events` : ''
      const why = reason === null ? '' : `: ${reason}${code === null ? '' : ` (${code})`}`
      say({ event: 'link', ...event }, `link ${state}: ${who.trim()}${why}${times}`)
    },
    error: (error) =>
      say(
        { event: 'error', code: error.code, message: error.message },
        `error: ${error.message} (${error.code})`,
      ),
    ending: (why) => say({ event: 'closing', why }, `${why}: closing`),
    closed: ({ flushed, unacknowledged, refusedBy }) => {
      const counts = Object.entries(unacknowledged).map(
        ([origin, n]) => `${n} patches of peer ${origin}`,
      )
      const readers = refusedBy.length > 0 ? ` (it may only read at ${refusedBy.join(', ')})` : ''
      const left = counts.join(', ') || 'nothing, but a peer that was waited for lacks some'
      say(
        { event: 'closed', flushed, unacknowledged, refusedBy },
        flushed ? 'closed' : `closed; nobody else has acknowledged: ${left}${readers}`,
      )
    },
  }
}
