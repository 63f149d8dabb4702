// Runs on Bun: readYourWrite around the handler of Bun.serve.
//   bun test/bun/middleware.js <folder>

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { Replica } from '../../lib/index.js'
import { readYourWrite } from '../../lib/middleware/fetch.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`
const [dir] = process.argv.slice(2)
const tokenSecret = 'sixteen bytes or more'

async function open(peerId) {
  const db = await Replica.open(join(dir, `${peerId}.db`), { peerId, tokenSecret })
  await db.migrate([{ up: DDL }])
  return db
}

function serve(db, options) {
  const handler = async (request, server) => {
    assert.ok(server.requestIP(request))
    const { pathname } = new URL(request.url)
    if (pathname === '/redirect') return Response.redirect('/there')
    if (request.method === 'GET') {
      return Response.json({
        row: await db.get('SELECT text FROM note WHERE id = 1'),
        ...request.replic,
      })
    }
    await db.upsert('note', { id: 1, text: await request.text() })
    if (pathname === '/throw') throw new Error('after the write')
    const parts = async function* () {
      yield 'streamed'
    }
    return new Response(pathname === '/stream' ? parts() : 'written')
  }
  const onError = ({ message }) => new Response(message, { status: 500 })
  const fetch = readYourWrite(db, handler, { cookie: 'replic', onError, ...options })
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch })
  return { server, origin: `http://127.0.0.1:${server.port}` }
}

const tokenOf = (response) => response.headers.get('x-replic-token')
const post = (url, body, headers) => fetch(url, { method: 'POST', body, headers })

const [a, b] = [await open(1), await open(2)]
for (const monotonicReads of [true, false]) {
  const [atA, atB] = [a, b].map((db) => serve(db, { timeoutMs: 30_000, monotonicReads }))
  const listener = await listen(a)
  const connection = connect(b, { port: listener.address().port })
  for (const path of ['/', '/stream', '/throw']) {
    const text = `${path} ${monotonicReads}`
    const written = await post(atA.origin + path, text)
    assert.equal(written.status, path === '/throw' ? 500 : 200)
    const token = tokenOf(written)
    assert.match(token, /^1\.\d+-[\w-]{22}$/)
    assert.match(written.headers.get('set-cookie'), /^replic=1\.\d+-[\w-]{22}; Path=\/; HttpOnly/)
    const read = await fetch(atB.origin, { headers: { cookie: `replic=${token}` } })
    assert.deepEqual(await read.json(), { row: { text }, stale: false, lost: [] })
  }
  const forged = await fetch(atB.origin, { headers: { 'x-replic-token': '1.999' } })
  assert.equal(forged.status, 400)
  const redirect = await fetch(`${atA.origin}/redirect`, {
    redirect: 'manual',
    headers: { 'x-replic-token': a.token() },
  })
  assert.equal(redirect.status, 302)
  assert.match(tokenOf(redirect), /^1\./)

  // Who goes away is forgotten.
  const far = await b.upsert('note', { id: 2 })
  await connection.close()
  await b.upsert('note', { id: 2 })
  const controller = new AbortController()
  const gone = fetch(atA.origin, {
    headers: { 'x-replic-token': b.token() },
    signal: controller.signal,
  })
  while (a.status().waits === 0) await new Promise((resolve) => setImmediate(resolve))
  controller.abort()
  await gone.catch(() => {})
  while (a.status().waits > 0) await new Promise((resolve) => setImmediate(resolve))
  assert.ok(far)
  await listener.close()
  await Promise.all([atA.server.stop(true), atB.server.stop(true)])
}
await Promise.all([a.close(), b.close()])
console.log('as expected')
