// Types of read your own write: what must compile, and what must not.

import fastify from 'fastify'
import { readYourWrite as plugin } from '../../types/fastify.js'
import { readYourWrite } from '../../types/fetch.js'
import type { Middleware, Replica, SessionOptions, Token } from '../../types/index.js'

function same<A, B>(
  _: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false,
) {}

export async function tokens(db: Replica) {
  same<ReturnType<typeof db.token>, Token>(true)
  const merged = db.mergeTokens(await db.upsert('note', { id: 1 }), db.token(), '7.1~a.2')
  await db.waitFor(merged, { timeoutMs: 500, signal: AbortSignal.timeout(10) })
  // @ts-expect-error a token is a text
  db.mergeTokens(7.1)
  same<ReturnType<typeof db.status>['waits'], number>(true)
}

export function serving(db: Replica) {
  const options: SessionOptions = { cookie: 'replic', onTimeout: 'stale', monotonicReads: false }
  same<ReturnType<typeof db.readYourWrite>, Middleware>(true)
  const app: {
    use(...handlers: (string | ((req: object, res: object, next: () => void) => void))[]): void
  } = { use: () => {} }
  app.use(db.readYourWrite())
  app.use('/api', db.readYourWrite('x-replic-token', 500))
  app.use(db.readYourWrite(null, options))
  // @ts-expect-error no such option
  db.readYourWrite('x-replic-token', { timeout: 500 })
  // @ts-expect-error one of two words
  db.readYourWrite('x-replic-token', { onTimeout: 'wait' })
}

export async function plugging(db: Replica) {
  const app = fastify()
  await app.register(plugin, { db, timeoutMs: 100 })
  app.get('/', async (request) => {
    same<typeof request.replic.stale, boolean>(true)
  })
  // @ts-expect-error the replica is required
  await app.register(plugin, {})
}

export async function fetching(db: Replica) {
  const handle = readYourWrite(db, async (request: Request, server: { port: number }) => {
    return new Response(`${request.url} ${server.port}`)
  })
  const response = await handle(new Request('http://localhost/'), { port: 1 })
  same<typeof response, Response>(true)
  const onError = (error: unknown) => new Response(String(error), { status: 500 })
  readYourWrite(db, () => new Response(), { onError, header: 'x-token' })
  const upgrading = readYourWrite(db, () => undefined)
  same<Awaited<ReturnType<typeof upgrading>>, Response | undefined>(true)
  // @ts-expect-error a handler is required
  readYourWrite(db)
}
