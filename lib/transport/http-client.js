// The dialing side of HTTP: a session over node:http or node:https, which Node and Bun both have, and
// which take the certificates and agents that fetch() does not. One request at a time carries frames
// there, another one waits for those from there.

import { Agent as HttpAgent, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { printable, ReplicError } from '../base/errors.js'
import { CONTENT_TYPE, Session } from './http-frames.js'

const MAX_FAILURES = 5 // of requests in a row; then the session is given up
const MIN_POLL_MS = 100
const SESSION_ID = /^[\w-]{1,64}$/
const MAX_TEXT = 200 // of what a server says, in messages

/** The other side of ServerSession. Opens itself. */
export class ClientSession extends Session {
  #options
  #request
  #agent
  #requests = new Set()
  #poll // the request that waits
  #id
  #pollMs
  #failures = 0
  #isSending = false
  #isEnding = false
  #stopWaiting = new Set()
  readyState = 0

  /** `options`: those of connect(), with `url` as a URL; `limits`: those of Replica.open(). */
  constructor(options, limits) {
    super(limits)
    const isSecure = options.url.protocol === 'https:'
    this.#options = options
    this.#pollMs = options.pollMs
    this.#request = isSecure ? httpsRequest : httpRequest
    const Agent = isSecure ? HttpsAgent : HttpAgent
    this.#agent = options.agent ?? new Agent({ keepAlive: true, ...options.tls })
    this.#open()
  }

  async #open() {
    try {
      const headers = await this.#post({}, Buffer.alloc(0), () => {})
      this.#id = headers['replic-session']
      if (!SESSION_ID.test(this.#id ?? '')) throw notOurs(this.#options.url, 'names no session')
    } catch (error) {
      return this.fail(error)
    }
    if (this.readyState === 3) return
    this.readyState = 1
    this.emit('open')
    this.#sendAll()
    this.#pollAll()
  }

  ready() {
    this.#sendAll()
  }

  async #sendAll() {
    if (this.#isSending || this.readyState !== 1) return
    this.#isSending = true
    while (this.readyState === 1 && (this.hasFrames || this.#isEnding)) {
      const body = this.takeBody(this.#options.maxBodyBytes)
      const isLast = this.#isEnding && !this.hasFrames
      await this.#exchange(isLast ? { 'replic-end': '1' } : {}, body)
      if (isLast) this.terminate()
    }
    this.#isSending = false
  }

  async #pollAll() {
    while (this.readyState === 1 && !this.#isEnding) {
      await this.#exchange({ 'replic-poll': `${Math.ceil(this.#pollMs)}` }, Buffer.alloc(0))
      await this.resumed()
    }
  }

  // One request, again and again until it is answered or the session given up: what comes twice is
  // harmless. Of a poll that failed the next one does as well: what it was to bring waits there.
  async #exchange(extra, body) {
    const isPoll = extra['replic-poll'] !== undefined
    while (this.readyState === 1 && !(isPoll && this.#isEnding)) {
      const begin = performance.now()
      try {
        const headers = await this.#post({ ...extra, 'replic-session': this.#id }, body)
        this.#failures = 0
        if (isPoll && headers['content-length'] === '0') this.#lengthen()
        if (headers['replic-end'] !== undefined) this.terminate()
        return
      } catch (error) {
        if (this.readyState !== 1 || (isPoll && this.#isEnding)) return
        if (!isTransient(error) || ++this.#failures > MAX_FAILURES) return this.fail(error)
        if (isPoll) this.#shorten(performance.now() - begin)
        await this.#pause()
        if (isPoll) return // the next one may be shorter
      }
    }
  }

  // A proxy that waits less for an answer than a poll takes has cut it: ask for a shorter one.
  #shorten(ms) {
    if (ms < this.#pollMs) this.#pollMs = Math.max(MIN_POLL_MS, Math.min(ms, this.#pollMs) / 2)
  }

  #lengthen() {
    this.#pollMs = Math.min(this.#options.pollMs, this.#pollMs * 1.1)
  }

  // Before a request is made again. At once the first time: a connection that was kept alive has been
  // closed by the other side, most likely.
  async #pause() {
    if (this.#failures === 1) return
    const { retryMinMs, retryMaxMs, unref } = this.#options
    const most = Math.min(retryMaxMs, retryMinMs * 2 ** (this.#failures - 2))
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.random() * most)
      if (unref) timer.unref()
      this.#stopWaiting.add(resolve)
    })
    this.#stopWaiting.clear()
  }

  /** Resolves with the headers of the response, once all of its frames are taken in. */
  async #post(extra, body) {
    const { headers } = this.#options
    const given = typeof headers === 'function' ? await headers() : headers
    return new Promise((resolve, reject) => {
      const options = {
        method: 'POST',
        agent: this.#agent,
        headers: {
          ...given,
          'content-type': CONTENT_TYPE,
          'content-length': `${body.length}`,
          ...extra,
        },
      }
      let isAnswered = false
      const request = this.#request(this.#options.url, options, (response) => {
        isAnswered = true
        this.#receive(response).then(resolve, (error) => {
          reject(error)
          request.destroy()
        })
      })
      this.#requests.add(request)
      if (extra['replic-poll']) this.#poll = request
      request.on('error', (error) => {
        if (error.message === 'socket hang up') reject(cutOff(this.#options.url))
        else reject(error)
      })
      request.on('close', () => {
        this.#requests.delete(request)
        if (!isAnswered) reject(cutOff(this.#options.url))
      })
      if (this.readyState === 3) request.destroy()
      else request.end(body)
    })
  }

  async #receive(response) {
    const { statusCode: status, headers } = response
    const { url } = this.#options
    if (status !== 200) throw refused(url, status, headers, await firstText(response))
    const type = headers['content-type']
    if (type !== CONTENT_TYPE || headers['content-encoding']) {
      const kinds = [headers['content-encoding'], type].filter(Boolean).join(' ')
      throw notOurs(url, `answers with ${printable(kinds) || 'what has no content-type'}`)
    }
    const reader = this.reader()
    for await (const chunk of response) reader.take(chunk)
    if (!response.complete) throw cutOff(url)
    reader.end()
    return headers
  }

  close() {
    if (this.readyState !== 1) return this.terminate()
    this.#isEnding = true
    this.#poll?.destroy()
    this.#sendAll()
  }

  terminate() {
    this.ended()
    for (const request of this.#requests) request.destroy()
    for (const stop of this.#stopWaiting) stop()
    if (!this.#options.agent) this.#agent.destroy()
  }
}

async function firstText(response) {
  if (!response.headers['content-type']?.startsWith('text/plain')) return ''
  let text = ''
  for await (const chunk of response) {
    text += chunk
    if (text.length >= MAX_TEXT) break
  }
  return text.slice(0, MAX_TEXT).trim()
}

const where = ({ origin, pathname }) => `${origin}${pathname}`
const cutOff = (url) =>
  Object.assign(
    new Error(`the connection to ${where(url)} ended before its response: does it speak HTTP?`),
    {
      code: 'ECONNRESET',
    },
  )
const notOurs = (url, does) =>
  new ReplicError(
    'REPLIC_PROTOCOL',
    `${where(url)} ${does}: is the handler of replic-sqlite mounted there, and no compression before it?`,
  )

const CODES = {
  401: 'REPLIC_AUTH',
  403: 'REPLIC_AUTH',
  408: 'REPLIC_TIMEOUT',
  413: 'REPLIC_TOO_LARGE',
  504: 'REPLIC_TIMEOUT',
}
const REMEDIES = {
  401: 'give the credentials it asks for in `headers`',
  403: 'give the credentials it asks for in `headers`',
  404: 'is the handler mounted at this path?',
  405: 'is the handler mounted at this path?',
  410: 'its session is gone, as after a restart; a new one is begun',
  413: 'a proxy permits smaller requests only: set maxBodyBytes below its limit',
  426: 'a proxy on the way does not hand the upgrade on (docs/transports.md, WebSocket, says how nginx does)',
}

/** The error of an answer that is not the one hoped for. */
export function refused(url, status, { location }, text) {
  const code =
    CODES[status] ?? (status === 429 || status >= 500 ? 'REPLIC_BUSY' : 'REPLIC_PROTOCOL')
  const remedy =
    status >= 300 && status < 400
      ? `it redirects to ${location}, which is not followed: give the right url`
      : (REMEDIES[status] ?? '')
  const details = printable([remedy, text].filter(Boolean).join('; '))
  return new ReplicError(code, `${where(url)} answered ${status}${details && `: ${details}`}`)
}

// Whether the same request may be answered the next time.
const isTransient = ({ code }) =>
  !code?.startsWith('REPLIC_') || code === 'REPLIC_BUSY' || code === 'REPLIC_TIMEOUT'
