// readYourWrite as a plugin of Fastify 5.

import { Head, signalOf } from './head.js'
import { Visits } from './visit.js'

/** The plugin; see types/fastify.d.ts. */
export async function readYourWrite(app, { db, ...options }) {
  // What Fastify adds to the options of register() is not ours.
  const { prefix, logLevel, logSerializers, ...given } = options
  const visits = new Visits('readYourWrite', db, given)
  const begun = new WeakMap() // request -> Visit, of those that collect
  app.decorateRequest('replic', null)
  app.addHook('onRequest', (request, reply, done) => {
    const { headers } = request
    const visit = visits.begin(visits.header && headers[visits.header], headers.cookie)
    if (visit.collects) begun.set(request, visit)
    request.replic = visit.state
    const go = () => {
      if (visit.refusal) return refuse(reply, visit.refusal)
      new Head(visits.header, visit).hook(reply.raw)
      visit.run(done)
    }
    const waiting = visit.enter(signalOf, reply.raw)
    if (waiting) waiting.then((isThere) => (isThere ? go() : reply.hijack())).catch(done)
    else go()
  })
  // The events of a body that is read in between belong to its connection, not to the request.
  if (!visits.options.monotonicReads || visits.acks) {
    app.addHook('preValidation', (request, _reply, done) => begun.get(request).run(done))
  }
}

readYourWrite[Symbol.for('skip-override')] = true // for all routes of the app, not for a scope of its own
readYourWrite[Symbol.for('fastify.display-name')] = 'replic-sqlite'

function refuse(reply, { status, headers, text }) {
  reply.code(status).headers(headers).type('text/plain; charset=utf-8').send(text)
}
