// Types of replic-sqlite/http: what must compile, and what must not.

import { createServer } from 'node:http'
import { type Connection, connect, fetchHandler, handler } from '../../types/http.js'
import type { Replica } from '../../types/index.js'

function same<A, B>(
  _: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false,
) {}

export async function serving(db: Replica) {
  createServer(handler(db))
  createServer(handler(db, { pollMs: 5_000 }))
  const handle = fetchHandler(db)
  const response = await handle(new Request('http://localhost/'), {})
  same<typeof response, Response>(true)
  await handle.close()
  // @ts-expect-error no such option
  handler(db, { poll: 5_000 })
}

export async function dialing(db: Replica) {
  const connection = connect(db, { url: 'https://example.com/replic', peerId: 7 })
  same<typeof connection, Connection>(true)
  connect(db, { url: new URL('https://example.com'), headers: { authorization: 'Bearer x' } })
  connect(db, {
    url: 'https://example.com',
    headers: async () => ({ authorization: 'x' }),
    tls: { ca: 'x' },
  })
  // @ts-expect-error the url is required
  connect(db, {})
  await connection.close()
}
