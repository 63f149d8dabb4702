// What readYourWrite costs a request that does not have to wait: the same routes of Express, with it and
// without, in one process of their own, loaded by autocannon in turn (A B A B ...).
// A round is a second of requests; counted are how many there were, and the processor time that the serving
// process took for each, which other work on the machine disturbs less.
//   npm run bench:middleware [-- rounds]

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { argv } from 'node:process'
import { fileURLToPath } from 'node:url'
import autocannon from 'autocannon'
import express from 'express'
import { Replica } from '../lib/index.js'
import { inTurn, median, table, withFile } from './harness.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`
const SECRET = 'the secret of the benchmark'
const KINDS = {
  bare: null,
  'bare, again': null, // what the measurement itself is good for
  token: {},
  'token, signed': { isSigned: true },
  'token, monotonicReads: false': { monotonicReads: false },
}
const ROUTES = { 'a row, read and sent as JSON': '/note', '{"ok":true}': '/ok' }
const CONNECTIONS = 32

async function serve() {
  await withFile((path) =>
    withFile(async (signedPath) => {
      const plain = await Replica.open(path, { peerId: 1 })
      const signed = await Replica.open(signedPath, { peerId: 1, tokenSecret: SECRET })
      const tokens = {}
      for (const db of [plain, signed]) {
        await db.migrate([{ up: DDL }])
        await db.upsert('note', {
          id: 1,
          text: 'A note of about as many characters as notes have.',
        })
      }
      const servers = {}
      for (const [kind, options] of Object.entries(KINDS)) {
        const { isSigned, ...given } = options ?? {}
        const db = isSigned ? signed : plain
        const app = express()
        if (options) app.use(db.readYourWrite('x-replic-token', given))
        app.get('/note', async (_req, res) =>
          res.json(await db.get('SELECT id, text FROM note WHERE id = ?', [1])),
        )
        app.get('/ok', (_req, res) => res.json({ ok: true }))
        const server = createServer(app).listen(0, '127.0.0.1')
        await once(server, 'listening')
        servers[kind] = server.address().port
        tokens[kind] = db.token()
      }
      process.on('message', () => process.send(process.cpuUsage()))
      process.send({ servers, tokens })
      await once(process, 'disconnect')
      await Promise.all([plain.close(), signed.close()])
    }),
  )
  process.exit()
}

async function measure(rounds) {
  const child = fork(fileURLToPath(import.meta.url), ['serve'])
  const [{ servers, tokens }] = await once(child, 'message')
  const cpuMicroseconds = async () => {
    child.send('cpu')
    const [{ user, system }] = await once(child, 'message')
    return user + system
  }
  const load = async (kind, path) => {
    const before = await cpuMicroseconds()
    const { non2xx, errors, requests } = await autocannon({
      url: `http://127.0.0.1:${servers[kind]}${path}`,
      headers: { 'x-replic-token': tokens[kind] }, // the bare route gets it as well
      connections: CONNECTIONS,
      duration: 1,
    })
    if (non2xx || errors) throw new Error(`${kind}: ${non2xx} answers, ${errors} errors`)
    return { rate: requests.total, cpu: ((await cpuMicroseconds()) - before) / requests.total }
  }
  const head = [
    'route of Express',
    'with',
    'requests/s',
    'of bare',
    'CPU us',
    'of bare',
    'quartiles',
  ]
  const rows = [head]
  for (const [title, path] of Object.entries(ROUTES)) {
    for (const kind of Object.keys(KINDS)) await load(kind, path) // warm
    const sides = Object.fromEntries(
      Object.keys(KINDS).map((kind) => [kind, () => load(kind, path)]),
    )
    const figures = await inTurn(sides, rounds)
    for (const [kind, list] of Object.entries(figures)) {
      const ratios = (of) => list.map((round, i) => round[of] / figures.bare[i][of])
      const middle = (of) => Math.round(median(list.map((round) => round[of])))
      const cpu = ratios('cpu').sort((x, y) => x - y)
      const quartiles = [cpu[cpu.length >> 2], cpu[(3 * cpu.length) >> 2]]
      rows.push([
        ...[title, kind, middle('rate').toLocaleString('en-US'), median(ratios('rate')).toFixed(3)],
        ...[`${middle('cpu')}`, median(cpu).toFixed(3)],
        quartiles.map((ratio) => ratio.toFixed(3)).join(' - '),
      ])
    }
  }
  for (const line of table(rows, [0, 1])) console.log(line)
  child.disconnect()
}

if (argv[2] === 'serve') await serve()
else await measure(Number(argv[2] ?? 25))
