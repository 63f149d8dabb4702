// Every decoder in JavaScript, as name -> make(random) -> step(): each step gives it one input. A step may throw
// ReplicErrors and nothing else, takes little time, and leaves little behind.

import { EventEmitter } from 'node:events'
import { DEFAULTS, MAX_PEER_ID } from '../../lib/base/options.js'
import { ReplayWindow } from '../../lib/base/replay.js'
import { Decoder } from '../../lib/cli/frames.js'
import { errorFrame, Handshake, peerIdOfHello, readError } from '../../lib/links/handshake.js'
import { Links } from '../../lib/links/links.js'
import { mergeEntries, Tokens } from '../../lib/progress/token.js'
import { BROWSERS_DEFAULTS, Browsers } from '../../lib/transport/browsers.js'
import { Parts, readMessage, senderKey, unsealed, WINDOW } from '../../lib/transport/bus-message.js'
import { Session as HttpSession } from '../../lib/transport/http-frames.js'
import { Server as HttpServer } from '../../lib/transport/http-server.js'
import { FrameSocket as TcpSocket } from '../../lib/transport/tcp-frames.js'
import * as datagram from '../../lib/transport/udp/datagram.js'
import { Cookies, Initiator } from '../../lib/transport/udp/handshake.js'
import { Session as UdpSession } from '../../lib/transport/udp/session.js'
import { FrameSocket as WebSocketFrames } from '../../lib/transport/websocket-frames.js'
import { Verifier } from '../../lib/verify/verifier.js'
import {
  bodies,
  datagrams,
  frames,
  KEY,
  messages,
  mutated,
  mutatedFrame,
  mutatedJson,
  noise,
  oneOf,
  PREFIX,
  pieces,
  SECRET,
  stream,
} from './inputs.js'

const FRAMES = frames()
const DATAGRAMS = datagrams(FRAMES)
const MESSAGES = [...messages(FRAMES), ...messages(FRAMES, KEY)]
const BODIES = bodies(FRAMES)
const STREAM = [stream(FRAMES), stream(FRAMES.slice(3, 9)), stream([FRAMES[0]])]
const JSONS = FRAMES.filter((frame) => frame[1] === 10).map((frame) =>
  JSON.parse(frame.subarray(2, -4)),
)
const LIMITS = { ...DEFAULTS, maxFrameBytes: 100_000, windowBytes: 100_000 }
const SENDER = { address: '192.0.2.1', port: 7000 }
const ID = Buffer.from('replicid')

const check = (holds, what) => {
  if (!holds) throw new TypeError(what)
}
const isCount = (value) => Number.isSafeInteger(value) && value >= 0
const isPeer = (value) => isCount(value) && value >= 1 && value <= MAX_PEER_ID

function datagramsAreRead(random) {
  const window = new ReplayWindow()
  return () => {
    const bytes = mutated(random, DATAGRAMS)
    const type = datagram.typeOf(bytes)
    if (type === undefined) return
    if (bytes.length >= datagram.SESSION_BYTES) {
      const counter = datagram.counterOf(bytes)
      check(counter === undefined || isCount(counter), `counter ${counter}`)
      window.take(counter)
      check(isCount(window.highest), `highest ${window.highest}`)
    }
    const connect = datagram.readConnect(bytes)
    if (connect) {
      check(isPeer(connect.peerId), 'the peerId of a CONNECT')
      datagram.isProven(connect, KEY)
      new Cookies().isValid(connect.cookie, connect.id, SENDER)
    }
    for (const hasTag of [false, true]) {
      const accept = datagram.readAccept(bytes, hasTag)
      check(!accept || isPeer(accept.peerId), 'the peerId of an ACCEPT')
    }
    const data = datagram.readData(bytes)
    check(!data || (isCount(data.number) && data.flags <= 2), 'DATA')
    const ack = datagram.readAck(bytes)
    check(!ack || (isCount(ack.echo) && isCount(ack.next) && ack.bitmap.length <= 512), 'ACK')
    for (const each of [[], [KEY]]) {
      const said = datagram.readAnnounce(bytes, each)
      check(!said || isPeer(said.peerId), 'the peerId of an ANNOUNCE')
    }
  }
}

/** A session of UDP, as who accepts or dials has it; new after each that has ended. */
function udpSessions(random) {
  let session
  const counters = { malformed: 0, forged: 0, replayed: 0, moved: 0, noRoom: 0, unknown: 0 }
  const endpoint = {
    mtu: 1200,
    maxFrameBytes: 100_000,
    counters,
    transmit: () => {},
    remove: () => {},
  }
  const begin = () => {
    session = new UdpSession(endpoint, ID, SENDER)
    session.on('error', isOurs)
    const settings = {
      secret: oneOf(random, [undefined, KEY]),
      peerId: 12,
      counters,
      transmit: () => {},
    }
    if (random(3) === 0) return session.dial(SENDER, new Initiator(session, settings))
    session.open({ remoteId: ID, peerId: 11, seal: datagram.sealOf(undefined) })
    for (const frame of FRAMES.slice(0, random(20))) session.send(frame)
  }
  return () => {
    if (!session || session.readyState === 3 || random(200) === 0) {
      session?.terminate()
      begin()
    }
    const bytes = mutated(random, DATAGRAMS)
    const type = datagram.typeOf(bytes)
    if (type !== undefined) session.take(type, bytes, random(20) ? SENDER : { ...SENDER, port: 1 })
    if (random(10) === 0) session[oneOf(random, ['pause', 'resume'])]()
  }
}

function busMessages(random) {
  const [parts, window] = [new Parts(100_000), new ReplayWindow(WINDOW)]
  return () => {
    const bytes = mutated(random, MESSAGES)
    const message = readMessage(bytes)
    if (!message) return
    const sender = { ...message, prefix: PREFIX }
    if (message.isSealed && !unsealed(message, senderKey(KEY, sender))) return
    check(isCount(message.number), `number ${message.number}`)
    window.take(message.number)
    const frame = parts.take(message.body)
    check(!frame || frame.length <= 100_000, 'a frame is too large')
    check(parts.keptBytes <= 125_000, `${parts.keptBytes} bytes are kept`)
  }
}

class Bodies extends HttpSession {
  ready() {}
  terminate() {
    this.ended()
  }
}

function httpBodies(random) {
  const session = new Bodies(LIMITS)
  let kept = 0
  session.checkKept = (bytes) => {
    kept = bytes
    check(bytes <= 2 * (LIMITS.maxFrameBytes + 2 ** 21), 'too much is kept')
  }
  return () => {
    const reader = session.reader()
    for (const piece of pieces(random, mutated(random, BODIES))) reader.take(piece)
    reader.end()
    check(isCount(kept), 'bytes kept')
  }
}

/** Requests, whose answers are promises: what they reject with is no answer at all. */
function httpRequests(random) {
  const add = (session) => session.on('error', isOurs) && { end: () => {} }
  const links = { options: LIMITS, add, turnedAway: (_, error) => isOurs(error) }
  const server = new HttpServer(links, 1, new Browsers(BROWSERS_DEFAULTS, () => false))
  const ids = []
  const values = {
    origin: [undefined, 'null', 'https://evil.example', ''],
    host: ['127.0.0.1:80', undefined, 'evil.example', '[::1]:1', '[', '', ':'],
    'content-type': ['application/vnd.replic-sqlite', 'text/html', ';', ''],
    'content-length': ['0', '4', '-1', '1e9', 'x', '99999999999999999999'],
    'transfer-encoding': [undefined, 'chunked'],
    'content-encoding': [undefined, 'identity', 'gzip', ''],
    'replic-poll': [undefined, '0', '1', '-1', 'NaN', '1e400', '9'.repeat(400), ''],
    'replic-end': [undefined, '1', ''],
    'replic-session': [undefined, undefined, '', '__proto__', 'x'.repeat(9000)],
  }
  return async () => {
    const given = Object.fromEntries(
      Object.entries(values).map(([name, some]) => [
        name,
        random(3) ? some[0] : oneOf(random, some),
      ]),
    )
    if (ids.length > 0 && random(4)) given['replic-session'] = oneOf(random, ids)
    const { status, headers, body } = await server.answer({
      method: random(20) ? 'POST' : 'GET',
      header: (name) => given[name],
      read: (take) => pieces(random, mutated(random, BODIES)).forEach((piece) => void take(piece)),
      onGone: () => {},
      address: null,
      details: {},
    })
    check(status >= 200 && status <= 503 && status !== 500, `status ${status}: ${body}`)
    if (headers['replic-session']) ids.push(headers['replic-session'])
    if (ids.length > 20) ids.shift()
  }
}

function tcpStreams(random) {
  return () => {
    const socket = new EventEmitter()
    const calls = [
      'setNoDelay',
      'setKeepAlive',
      'write',
      'cork',
      'uncork',
      'pause',
      'resume',
      'end',
      'destroy',
    ]
    for (const name of calls) socket[name] = () => socket
    const sockets = new TcpSocket(socket, null, 100_000)
    sockets.on('error', isOurs)
    for (const piece of pieces(random, mutated(random, STREAM))) socket.emit('data', piece)
    socket.emit('close', false)
  }
}

function webSockets(random) {
  let socket
  const begin = () => {
    const raw = {
      readyState: 1,
      binaryType: '',
      bufferedAmount: 0,
      send() {},
      close() {},
      addEventListener() {},
    }
    socket = new WebSocketFrames(LIMITS, random(2) ? () => {} : undefined).use(raw)
    socket.on('error', isOurs)
  }
  const forms = [
    (bytes) => bytes,
    (bytes) => new Uint8Array(bytes).buffer,
    (bytes) => [bytes, Buffer.alloc(0)],
    (bytes) => Buffer.concat([Buffer.of(1, 34), bytes]),
    (bytes) => Buffer.concat([Buffer.of(1, 35), bytes]),
    (bytes) => bytes.toString('latin1'),
    () => Buffer.of(1, oneOf(random, [0, 1, 11, 12, 31, 32, 33, 34, 35, 36, 37])),
    () => oneOf(random, [null, undefined, 7, {}, [null], [1]]),
  ]
  return () => {
    if (!socket || socket.isEnding || random(100) === 0) begin()
    socket.received(oneOf(random, forms)(mutated(random, FRAMES)))
    if (random(500) === 0)
      socket.closed(oneOf(random, [1002, 1009, 4008]), noise(random, 100).toString())
  }
}

function handshakes(random) {
  const send = () => {}
  let side
  return () => {
    if (!side || random(20) === 0) {
      side = new Handshake({ keys: [KEY], peerId: 12, isInitiator: random(2) === 0, send })
      side.begin()
    }
    const bytes = mutatedFrame(random, FRAMES)
    const peerId = peerIdOfHello(bytes)
    check(peerId === undefined || isPeer(peerId), `peerId ${peerId}`)
    if (bytes.length > 0) side.take(bytes)
    check(side.peerId === undefined, 'it is taken for somebody who knows the secret')
  }
}

function errors(random) {
  const all = ['', 'a text', 'ü\n\u2028\u202e', 'x'.repeat(2000)].map((message) =>
    errorFrame({ code: 'REPLIC_AUTH', message }),
  )
  return () => {
    const error = readError(mutatedFrame(random, all))
    if (!error) return
    isOurs(error)
    check(error.message.length <= 500, 'a long text')
    check(!/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]/u.test(error.message), 'what cannot be printed')
  }
}

/** Links, with all that comes before the core: no frame of a stranger's reaches that where there is a secret. */
function links(random) {
  const core = { receive: () => 0, linkOpen: () => {}, linkClose: () => {}, tick: () => {} }
  const settings = [
    { secret: SECRET },
    { secret: SECRET, authorize: () => true },
    { authorize: (peerId) => peerId === 11 },
    {},
  ]
  let all
  let socket
  let options
  const begin = () => {
    all?.stop()
    all?.terminate()
    options = { ...LIMITS, ...oneOf(random, settings) }
    const native = { ...core, receive: () => check(!options.secret, 'a frame of a stranger') || 0 }
    const callbacks = { emit: () => {}, soon: () => {}, total: () => 0 }
    const keys = options.secret ? [KEY] : []
    all = new Links(native, callbacks, options, { peerId: 12, keys })
  }
  const join = () => {
    socket = new EventEmitter()
    const end = () => queueMicrotask(() => socket.emit('close'))
    Object.assign(socket, {
      send: () => {},
      close: end,
      terminate: end,
      readyState: 1,
      checkKept: null,
    })
    all.add(socket, { transport: 'fuzz', address: '192.0.2.1', isAccepted: true })
  }
  return () => {
    if (!all || random(2000) === 0) begin()
    if (!socket || random(10) === 0) join()
    if (random(20) === 0) {
      try {
        socket.checkKept?.(random(10_000))
      } catch (error) {
        isOurs(error)
        socket.emit('error', error)
      }
    } else socket.emit('message', mutatedFrame(random, FRAMES))
  }
}

function tokens(random) {
  const some = [new Tokens([]), new Tokens([SECRET]), new Tokens([`${SECRET}!`, SECRET])]
  const all = [
    [[11, 2]],
    [
      [11, 0],
      [12, 345],
    ],
    [
      [MAX_PEER_ID, Number.MAX_SAFE_INTEGER],
      [1, 1],
      [2, 2],
    ],
    Array.from({ length: 100 }, (_, i) => [i + 1, 36 ** i % 2 ** 53]),
  ].flatMap((entries) => some.map((each) => Buffer.from(each.format(entries))))
  const grammar = () =>
    Array.from({ length: random(30) }, () =>
      oneOf(random, ['1', '9', 'z', '.', '~', '-', '0', ',', 'é']),
    ).join('')
  return () => {
    const text = random(4) ? mutated(random, all).toString('latin1') : grammar()
    const entries = oneOf(random, some).parse(text)
    for (const [origin, sequence] of entries)
      check(isPeer(origin) && isCount(sequence), `${origin}`)
    mergeEntries([entries, new Map([[1, 1]])])
  }
}

/** Questions of another peer's, while the file can be read, and while it cannot. */
function questions(random) {
  const cursor = { vector: () => [], close: async () => {}, all: async () => [] }
  const native = {
    snapshotOpen: async () => (random(2) ? cursor : Promise.reject(new Error('closed'))),
  }
  const sent = []
  const peers = { message: (_, bytes) => sent.push(bytes) }
  const file = {
    vector: () => new Map([[11, 1]]),
    walBytes: () => random(40) * 2 ** 20,
    isUnsure: () => random(2) === 0,
  }
  const verifier = new Verifier(native, peers, file, LIMITS)
  return () => {
    sent.length = 0
    const json = mutatedJson(random, oneOf(random, JSONS))
    const bytes = random(5)
      ? Buffer.from(JSON.stringify(json))
      : mutated(random, FRAMES).subarray(2, -4)
    verifier.message(1 + random(6), bytes)
    check(sent.length <= 1, 'more than one answer')
    if (random(300) === 0) verifier.advanced()
  }
}

function framesForPeople(random) {
  let decoder
  return () => {
    if (!decoder || random(30) === 0) decoder = new Decoder()
    decoder.decode(mutatedFrame(random, FRAMES))
  }
}

/** Asserts that an error is one of ours. */
export function isOurs(error) {
  if (error?.name !== 'ReplicError' || !/^REPLIC_[A-Z_]+$/.test(error.code)) throw error
}

export const TARGETS = {
  'datagrams of UDP': datagramsAreRead,
  'sessions of UDP': udpSessions,
  'messages of a bus': busMessages,
  'bodies of HTTP': httpBodies,
  'requests of HTTP': httpRequests,
  'streams of TCP': tcpStreams,
  'messages of a WebSocket': webSockets,
  'the proof of a secret': handshakes,
  'ERROR frames': errors,
  'links before the core': links,
  'session tokens': tokens,
  'questions of verify()': questions,
  'frames for people': framesForPeople,
}
