// readYourWrite() for Express 5 and 4, and whatever else calls (req, res, next) with node:http's objects.

import { IncomingMessage, ServerResponse } from 'node:http'
import { Head, signalOf } from './head.js'
import { Visits } from './visit.js'

/** The middleware; see types/index.d.ts. */
export function readYourWrite(db, header, options) {
  const given = typeof options === 'number' ? { timeoutMs: options } : options
  const named = header === undefined ? given : { ...given, header }
  const visits = new Visits('readYourWrite', db, named)
  const go = (visit, head, res, next) => {
    if (visit.refusal) return refuse(res, visit.refusal)
    if (head) head.begin()
    else new Head(visits.header, visit).hook(res)
    visit.run(next)
  }
  return (req, res, next) => {
    const { headers } = req
    const visit = visits.begin(visits.header && headers[visits.header], headers.cookie)
    const head = isOfExpress(req, res) ? noted(req.rawHeaders, visits.header, visit) : null
    if (!head) req.replic = visit.state
    const waiting = visit.enter(signalOf, res)
    if (!waiting) return go(visit, head, res, next)
    waiting.then((isThere) => isThere && go(visit, head, res, next)).catch(next)
  }
}

function refuse(res, { status, headers, text }) {
  res.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...headers })
  res.end(text)
}

// Express gives each request and response a prototype of its own, and V8 then takes microseconds for every
// property that is added to one: more than all the rest of a visit. So what belongs to a request of Express stands
// in its rawHeaders (not in headers, which applications replace), where nobody who copies or prints them sees it, and what
// looks it up in the prototypes that all of them have, express.request and express.response. (A WeakMap costs more than
// both: each time V8 collects its young objects.)

const READY = Symbol('readYourWrite') // of those prototypes: that it does so
const HEAD = Symbol('readYourWrite') // of rawHeaders: the Head of the request; of several replicas that of the last
const headOf = (req) => req?.rawHeaders?.[HEAD]

function noted(rawHeaders, header, visit) {
  const head = new Head(header, visit, rawHeaders[HEAD])
  Object.defineProperty(rawHeaders, HEAD, { value: head, configurable: true })
  return head
}

function isOfExpress(req, res) {
  if (!Array.isArray(req.rawHeaders)) return false // there is no place for it
  if (req[READY] && res[READY]) return true
  if (typeof req.app !== 'function') return false
  const request = prototypeAbove(IncomingMessage.prototype, req)
  const response = prototypeAbove(ServerResponse.prototype, res)
  if (!request || !response) return false
  prepareRequests(request)
  prepareResponses(response)
  return true
}

// The last prototype of `object` before `root`; null where `root` is the first one, or is none.
function prototypeAbove(root, object) {
  let at = Object.getPrototypeOf(object)
  while (at && Object.getPrototypeOf(at) !== root) at = Object.getPrototypeOf(at)
  return at
}

function prepareRequests(request) {
  request[READY] = true
  Object.defineProperty(request, 'replic', {
    get() {
      return headOf(this)?.visit.state
    },
    set(value) {
      const own = { value, writable: true, enumerable: true, configurable: true }
      Object.defineProperty(this, 'replic', own)
    },
    enumerable: true,
    configurable: true,
  })
}

function prepareResponses(response) {
  response[READY] = true
  const own = Object.hasOwn(response, 'writeHead') ? response.writeHead : null
  response.writeHead = function (...args) {
    for (let head = headOf(this.req); head; head = head.before) head.add(this, args)
    return (own ?? ServerResponse.prototype.writeHead).apply(this, args)
  }
}
