// readYourWrite() for Express 5 and 4, and whatever else calls (req, res, next) with node:http's objects.

import { onHead, signalOf } from './head.js'
import { Visits } from './visit.js'

/** The middleware; see types/index.d.ts. */
export function readYourWrite(db, header, options) {
  const given = typeof options === 'number' ? { timeoutMs: options } : options
  const named = header === undefined ? given : { ...given, header }
  const visits = new Visits('readYourWrite', db, named)
  return (req, res, next) => {
    const visit = visits.begin(visits.header && req.headers[visits.header], req.headers.cookie)
    req.replic = visit.state
    const go = () => {
      if (visit.refusal) return refuse(res, visit.refusal)
      onHead(res, visits.header, visit)
      visit.run(next)
    }
    const waiting = visit.enter(() => signalOf(res))
    if (waiting) waiting.then((isThere) => isThere && go()).catch(next)
    else go()
  }
}

function refuse(res, { status, headers, text }) {
  res.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...headers })
  res.end(text)
}
