// readYourWrite() for servers that give a Request and take a Response: Bun.serve, Hono, Deno.serve.

import { usage } from '../base/errors.js'
import { callback, kindOf } from '../base/options.js'
import { Visits } from './visit.js'

const ON_ERROR = { defaults: { onError: answerError }, checks: { onError: callback } }

const signalOf = ({ signal }) => signal

/** The handler with the token around it; see types/fetch.d.ts. */
export function readYourWrite(db, handler, options) {
  if (typeof handler !== 'function') {
    throw usage(`readYourWrite: a handler is needed, not ${kindOf(handler)}`)
  }
  const visits = new Visits('readYourWrite', db, options, ON_ERROR)
  return async (request, ...others) => {
    const { headers } = request
    const visit = visits.begin(visits.header && headers.get(visits.header), headers.get('cookie'))
    request.replic = visit.state
    await visit.enter(signalOf, request) // who has gone away gets an answer as well: it costs nothing
    if (visit.refusal) return refuse(visit.refusal)
    let response
    try {
      response = await visit.run(() => handler(request, ...others))
    } catch (error) {
      response = await visits.options.onError(error, request)
    }
    return response instanceof Response ? withToken(response, visits.header, visit) : response
  }
}

// Headers of a response that came from elsewhere (fetch(), Response.redirect()) cannot be changed.
function withToken(response, header, visit) {
  const token = visit.token()
  const cookie = token && visit.cookie(token)
  const add = (headers) => {
    if (token && header) headers.set(header, token)
    if (cookie) headers.append('set-cookie', cookie)
  }
  try {
    add(response.headers)
    return response
  } catch {
    const { status, statusText, headers, body } = response
    const changed = new Headers(headers)
    add(changed)
    return new Response(body, { status, statusText, headers: changed })
  }
}

function refuse({ status, headers, text }) {
  const plain = { 'content-type': 'text/plain; charset=utf-8' }
  return new Response(text, { status, headers: { ...plain, ...headers } })
}

function answerError(error) {
  console.error(error)
  return new Response('Internal Server Error\n', { status: 500 })
}
