// npx replic-sqlite: every command in a process of its own, and the mistakes that people make.

import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { createServer, connect as netConnect } from 'node:net'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { withSum } from '../lib/base/sum.js'
import { Replica } from '../lib/index.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { connect as connectWebSocket } from '../lib/transport/websocket.js'
import { authority } from './certificates.js'
import {
  converged,
  eventOf,
  NOTES,
  openReplica,
  runProcess,
  startProcess,
  tempDir,
} from './helpers.js'

const MAIN = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url))
const SECRET = 'a secret of the tests, long enough'

const cli = (...args) => runProcess(execPath, [MAIN, ...args])
const start = (args, options) => startProcess(execPath, [MAIN, ...args], options)

/** Asserts that a call fails with this exit code, says the words on stderr and nothing on stdout. */
async function fails(args, code, ...words) {
  const result = await cli(...args)
  expect(result).toMatchObject({ code, signal: null, stdout: '' })
  for (const word of words) expect(result.stderr).toContain(word)
  expect(result.stderr).not.toMatch(/\n {4}at /) // a stack is for programmers
  return result
}

/** A database file with two notes of peer 1; closed. */
async function makeFile(name = 'a.db', peerId = 1) {
  const path = join(tempDir(), name)
  const db = await Replica.open(path, { peerId })
  await db.migrate([{ name: 'notes', up: NOTES }])
  await db.upsert('note', [{ id: 1, text: 'one' }, { id: 2 }])
  await db.upsert('note', { id: 1, text: null })
  await db.close()
  return path
}

/** Starts `serve` and reads its events up to 'ready'; next(wanted) reads on. */
async function serve(args, options) {
  const child = start(['serve', ...args, '--json'], options)
  const seen = []
  const next = async (wanted) => {
    for (;;) {
      const line = await child.line()
      if (line === null) {
        const { stdout, stderr } = await child.ended
        throw new Error(`serve has ended: ${stdout}${stderr}`)
      }
      const event = JSON.parse(line)
      seen.push(event)
      if (wanted(event)) return event
    }
  }
  const ready = await next(({ event }) => event === 'ready')
  const urls = seen.filter(({ url }) => url).map(({ url }) => url)
  const stop = async (signal = 'SIGTERM') => {
    child.kill(signal)
    return child.ended
  }
  return { ready, urls, next, stop }
}

// ---- what all commands have ----

it('tells its commands, and each command its options', async () => {
  const all = await cli('--help')
  expect(all).toMatchObject({ code: 0, stderr: '' })
  const names = [...all.stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name)
  expect(names).toEqual(['status', 'serve', 'verify', 'backup', 'decode'])
  for (const name of names) {
    const { help, options } = await import(`../lib/cli/${name}.js`)
    expect(await cli(name, '--help')).toEqual({ code: 0, signal: null, stderr: '', stdout: help })
    for (const option of [...Object.keys(options), 'json']) expect(help).toContain(`--${option}`)
    expect(help).toMatch(new RegExp(`^replic-sqlite ${name} `))
  }
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url)))
  expect(await cli('--version')).toMatchObject({ code: 0, stdout: `${version}\n` })
})

const WRONG = [
  [[], 'a command is missing'],
  [['stat'], "there is no command 'stat'; did you mean 'status'?"],
  [['status'], '1 argument is wanted, not 0', 'status --help'],
  [['status', 'a', 'b'], '1 argument is wanted, not 2'],
  [['backup', 'a'], '2 arguments are wanted, not 1'],
  [['verify', 'a', 'b', 'c'], '1 or 2 arguments are wanted, not 3'],
  [['serve', 'a.db', '--lisen', 'x'], "there is no option --lisen; did you mean '--listen'?"],
  [['serve', 'a.db', '-x'], 'there is no option -x'],
  [['serve', 'a.db', '--listen'], '--listen needs a value'],
  [['serve', 'a.db', '--listen='], '--listen needs a value'],
  [['serve', 'a.db', '--create=yes'], '--create takes no value'],
  [['serve', 'a.db'], 'give --listen, --peer or both'],
  [
    ['serve', 'a.db', '--listen', 'ws://x', '--origin', 'x.example'],
    '--origin is a scheme, a host',
  ],
  [['serve', 'a.db', '--listen', 'ws://x', '--host', 'x.example:80'], '--host is a name without'],
  [
    ['serve', 'a.db', '--listen', '7000'],
    '--listen must be a URL that begins with tcp://',
    "'7000'",
  ],
  [['serve', 'a.db', '--listen', 'http://x'], '--listen must be a URL'],
  [['serve', 'a.db', '--listen', 'tcp://127.0.0.1'], 'a port is missing in tcp://127.0.0.1'],
  [['serve', 'a.db', '--peer', 'ftp://x:1'], '--peer must be a URL'],
  [
    ['serve', 'a.db', '--peer', 'tcp://x:1', '--peer-id', '0'],
    '--peer-id must be an integer from 1',
  ],
  [
    ['serve', 'a.db', '--peer', 'tcp://x:1', '--secret-env', 'NO_SUCH'],
    'the variable NO_SUCH is not set',
  ],
  [
    ['serve', 'a.db', '--peer', 'tcp://x:1', '--secret-file', '/no/such'],
    '/no/such cannot be read (ENOENT)',
  ],
  [['serve', 'a.db', '--peer', 'tcp://x:1', '--secret-env', 'A', '--secret-file', 'B'], 'not both'],
  [
    ['serve', '/no/such.db', '--peer', 'tcp://x:1'],
    'there is no file /no/such.db; --create makes one',
  ],
  [['backup', 'tcp://x:1', 'b'], "a file is wanted where 'tcp://x:1' stands"],
  [['serve', 'tcp://x:1', '--peer', 'tcp://x:1'], 'a file is wanted'],
  [['decode', 'tcp://x:1'], 'a file is wanted'],
  [['status', 'ftp://x'], 'URL must be a URL that begins with tcp://'],
  [
    ['status', 'a.db', '--timeout-ms', 'soon'],
    "--timeout-ms must be an integer from 1 to 2147483647, not 'soon'",
  ],
  [['decode', MAIN, '--limit', '3'], '--limit is for the log of a database file'],
]

it('refuses wrong arguments with exit code 2', async () => {
  await Promise.all(
    WRONG.map(([args, ...words]) => fails(args, 2, 'replic-sqlite: ', ...words, '(REPLIC_USAGE)')),
  )
})

it.each([['status'], ['verify'], ['backup'], ['decode']])(
  '%s says what is wrong with a file',
  async (name) => {
    const dir = tempDir()
    const rest = name === 'backup' ? [join(dir, 'to.db')] : []
    const missing = join(dir, 'missing.db')
    await fails([name, missing, ...rest], 1, `${name}: there is no file ${missing}; check the path`)
    expect(readdirSync(dir)).toEqual([])
    await fails([name, dir, ...rest], 1, `${dir} is no file; name a database file`)
    if (name === 'decode') return // it takes whatever file
    const text = join(dir, 'text')
    writeFileSync(text, 'no database, but long enough to be one.'.repeat(100))
    await fails([name, text, ...rest], 1, `${text} is no SQLite database`, 'SQLITE_NOTADB')
    const empty = join(dir, 'empty.db')
    writeFileSync(empty, '')
    await fails([name, empty, ...rest], 1, 'that no Replica has opened yet')
  },
)

it('says it as JSON, too', async () => {
  const { stderr } = await fails(['status', '/no/such.db', '--json'], 1)
  expect(JSON.parse(stderr)).toEqual({
    error: {
      code: 'SQLITE_CANTOPEN',
      message: 'status: there is no file /no/such.db; check the path',
    },
  })
})

it('is not troubled by a reader that stops early', async () => {
  const path = await makeFile()
  const result = await runProcess('sh', ['-c', `"${execPath}" "${MAIN}" decode "${path}" | true`])
  expect(result).toMatchObject({ code: 0, stderr: '' })
})

// ---- status ----

it('status shows a file, in use or not, and changes nothing', async () => {
  const path = await makeFile()
  const before = readFileSync(path)
  const text = await cli('status', path)
  expect(text).toMatchObject({ code: 0, stderr: '' })
  expect(text.stdout).toMatch(/^peerId {6}1$/m)
  expect(text.stdout).toMatch(/^schema {6}version 1 \(notes\)$/m)
  expect(text.stdout).toMatch(/^table {7}note: 2 rows, 3 patches$/m)
  expect(text.stdout).toMatch(/^has {9}its own patches up to 3, of 2/m)
  expect(readFileSync(path)).toEqual(before)
  const db = await openReplica({ path, ddl: null })
  const token = await db.upsert('note', { id: 3 })
  const { stdout } = await cli('status', path, '--json')
  const status = JSON.parse(stdout)
  expect(status).toMatchObject({ file: path, peerId: 1, pending: 0 })
  expect(status.tables).toEqual([{ name: 'note', rows: 3, patches: 4 }])
  expect(`1.${status.origins[0].sequence}`).toBe(token)
})

it('status of a copy does not make it a new peer', async () => {
  const path = await makeFile()
  const copied = join(tempDir(), 'copy.db')
  copyFileSync(path, copied)
  expect((await cli('status', copied)).stdout).toMatch(/^peerId {6}1$/m)
  expect(existsSync(`${copied}-replic`)).toBe(false)
})

it('status asks a running peer who it is', async () => {
  const db = await openReplica({ peerId: 7, secret: SECRET })
  await db.upsert('note', { id: 1 })
  const listener = await listen(db)
  const url = `tcp://127.0.0.1:${listener.address().port}`
  const secret = join(tempDir(), 'secret')
  writeFileSync(secret, `${SECRET}\n`)
  const text = await cli('status', url, '--secret-file', secret)
  expect(text).toMatchObject({ code: 0, stderr: '' })
  expect(text.stdout).toContain(`peer 7 answers at ${url}`)
  const { stdout } = await cli('status', url, '--secret-file', secret, '--json')
  expect(JSON.parse(stdout)).toMatchObject({ url, peerId: 7, transport: 'tcp' })
  await listener.close()
  await fails(['status', url], 1, `no link with ${url}`, 'ECONNREFUSED')
  await fails([`status`, url.replace('tcp', 'http')], 1, 'does not answer')
})

// ---- serve ----

it('serve links peers that know nothing of each other, over TCP and WebSocket', async () => {
  const hub = await serve([
    join(tempDir(), 'hub.db'),
    ...['--create', '--listen', 'tcp://127.0.0.1:0', '--listen', 'ws://127.0.0.1:0/replic'],
  ])
  expect(hub.ready.tables).toEqual([]) // what it cannot store it hands on
  const [tcp, ws] = hub.urls
  const [a, b] = [await openReplica({ peerId: 1 }), await openReplica({ peerId: 2 })]
  connect(a, { port: Number(new URL(tcp).port) })
  connectWebSocket(b, ws)
  await hub.next((event) => event.event === 'link' && event.state === 'up' && event.peerId === 1)
  const [one, two] = await Promise.all([a.upsert('note', { id: 1 }), b.upsert('note', { id: 2 })])
  await Promise.all([a.waitFor(two, 60_000), b.waitFor(one, 60_000)])
  expect(await converged(a, b)).toMatchObject({ note: [expect.any(String), expect.any(String)] })
  const { code, signal, stderr } = await hub.stop()
  expect({ code, signal }).toEqual({ code: 0, signal: null })
  expect(stderr).toMatch(/^replic-sqlite: warning: whoever reaches ws:.*\n$/)
})

it('serve dials, stores what its file has tables for, and tells it over HTTP', async () => {
  const db = await openReplica({ peerId: 1, secret: SECRET })
  const listener = await listen(db)
  const path = join(tempDir(), 'b.db')
  const made = await openReplica({ path, peerId: 2 })
  await made.close()
  const up = eventOf(db, 'link', ({ state, peerId }) => state === 'up' && peerId === 2)
  const hub = await serve(
    [
      path,
      '--peer',
      `tcp://127.0.0.1:${listener.address().port}`,
      '--metrics',
      'http://127.0.0.1:0',
      '--secret-env',
      'HUB_SECRET',
    ],
    { env: { ...process.env, HUB_SECRET: SECRET } },
  )
  await up
  const acknowledged = eventOf(db, 'synced', ({ peerId }) => peerId === 2)
  await db.upsert('note', { id: 5, text: 'to the hub' })
  await acknowledged
  const [metrics] = hub.urls
  const answer = await cli('status', metrics, '--json')
  expect(answer).toMatchObject({ code: 0, stderr: '' })
  const figures = JSON.parse(answer.stdout)
  expect(figures['replic_applied_sequence{origin="1"}']).toBe(1)
  const page = await cli('status', metrics.replace('/metrics', '/status'), '--json')
  expect(JSON.parse(page.stdout)).toMatchObject({ peerId: 2, vector: { 1: 1 } })
  await fails(['status', metrics.replace('/metrics', '/nothing')], 1, 'answers 404')
  expect(await hub.stop('SIGINT')).toMatchObject({ code: 0, stderr: '' })
  const after = await openReplica({ path, ddl: null })
  expect(await after.get('SELECT text FROM note WHERE id = 5')).toEqual({ text: 'to the hub' })
})

it('serve lets in no pages but those that are named', async () => {
  const file = join(tempDir(), 'hub.db')
  const web = ['--listen', 'ws://127.0.0.1:0', '--metrics', 'http://127.0.0.1:0']
  const named = ['--origin', 'https://app.example.com', '--host', 'hub.example.com']
  const hub = await serve([file, '--create', ...web, ...named])
  const [listener, metrics] = hub.urls
  const opens = async (headers) => {
    const socket = new WebSocket(listener, { headers })
    return new Promise((resolve) => {
      socket.on('open', () => resolve(101)).on('error', () => {})
      socket.on('unexpected-response', (_, { statusCode }) => resolve(statusCode))
    }).finally(() => socket.terminate())
  }
  const host = { host: 'evil.example' }
  const origin = { origin: 'https://evil.example' }
  for (const headers of [host, origin]) {
    expect(await opens(headers)).toBe(403)
    for (const path of ['/metrics', '/status']) {
      expect(await statusOf(metrics.replace('/metrics', path), headers)).toBe(403)
    }
  }
  const good = { host: 'hub.example.com', origin: 'https://app.example.com' }
  expect(await opens(good)).toBe(101)
  expect(await statusOf(metrics, good)).toBe(200)
  const { stderr } = await hub.stop()
  expect(stderr).toContain('warning: whoever reaches ws://127.0.0.1')
})

/** The status that a GET is answered with. */
const statusOf = (url, headers) =>
  new Promise((resolve, reject) => {
    get(url, { headers, agent: false }, (response) => resolve(response.resume().statusCode)).on(
      'error',
      reject,
    )
  })

it('serve encrypts with tls and wss', async () => {
  const { ca: text, sign } = authority()
  const files = { ca: text, ...sign({ name: 'hub', alt: 'DNS:localhost,IP:127.0.0.1' }) }
  const dir = tempDir()
  for (const [name, pem] of Object.entries(files)) writeFileSync(join(dir, name), pem)
  const [ca, cert, key] = ['ca', 'cert', 'key'].map((name) => join(dir, name))
  const hub = await serve([
    join(tempDir(), 'hub.db'),
    ...['--create', '--cert', cert, '--key', key],
    ...['--listen', 'tls://127.0.0.1:0', '--listen', 'wss://127.0.0.1:0'],
  ])
  for (const url of hub.urls) {
    const { stdout } = await cli(
      'status',
      url.replace('127.0.0.1', 'localhost'),
      '--ca',
      ca,
      '--json',
    )
    expect(JSON.parse(stdout)).toMatchObject({ peerId: hub.ready.peerId })
  }
  await hub.stop()
})

it('serve says why it cannot begin, and leaves the file free', async () => {
  const path = await makeFile()
  const taken = createServer().listen(0, '127.0.0.1')
  onTestFinished(() => void taken.close())
  await new Promise((resolve) => taken.once('listening', resolve))
  const { port } = taken.address()
  for (const scheme of ['tcp', 'ws']) {
    const url = `${scheme}://127.0.0.1:${port}`
    await fails(
      ['serve', path, '--listen', url],
      1,
      `${url} is in use by another program`,
      'EADDRINUSE',
    )
  }
  const free = 'tcp://127.0.0.1:0'
  const other = ['--listen', 'tcp://192.0.2.1:7000']
  await fails(['serve', path, ...other], 1, 'is no address of this machine', 'EADDRNOTAVAIL')
  await fails(['serve', path, '--listen', 'tls://127.0.0.1:0'], 2, 'needs --cert and --key')
  const short = join(tempDir(), 'secret')
  writeFileSync(short, 'short')
  await fails(['serve', path, '--listen', free, '--secret-file', short], 2, 'at least 16')
  const db = await openReplica({ path, ddl: null })
  await fails(['serve', path, '--listen', free], 1, path, 'REPLIC_LOCKED')
  await db.close()
})

it('serve warns where strangers could reach it', async () => {
  const hub = await serve([join(tempDir(), 'hub.db'), '--create', '--listen', 'tcp://0.0.0.0:0'])
  const { stderr } = await hub.stop()
  expect(stderr).toContain('warning: whoever reaches tcp://0.0.0.0')
})

// ---- verify ----

it('verify says that a file is sound, or what is wrong with it', async () => {
  const path = await makeFile()
  expect(await cli('verify', path)).toMatchObject({
    code: 0,
    stdout: `${path} is sound\n`,
    stderr: '',
  })
  const db = await openReplica({ path, ddl: null })
  await db.exec('DELETE FROM note_patches WHERE _sequenceId = 2', { unsafe: true })
  const { code, stdout } = await cli('verify', path, '--json') // while it is in use
  expect(code).toBe(3)
  expect(JSON.parse(stdout)).toEqual({
    file: path,
    sound: false,
    problems: ["1 of peer 1's patches 1 to 3 are not in the log"],
  })
})

it('verify finds a page that is damaged', async () => {
  const path = await makeFile()
  const bytes = readFileSync(path)
  bytes.fill(0x5a, bytes.length - 4000)
  writeFileSync(path, bytes)
  const result = await cli('verify', path)
  expect(result.code === 3 || result.stderr.includes('SQLITE_CORRUPT')).toBe(true)
})

it('verify compares files, also one that is behind, and leaves them alone', async () => {
  const path = await makeFile()
  const other = join(tempDir(), 'other.db')
  await cli('backup', path, other)
  expect(await cli('verify', path, other)).toMatchObject({
    code: 0,
    stderr: '',
    stdout: `${path} and ${other}: equal\n`,
  })
  const db = await openReplica({ path: other, ddl: null })
  const own = db.status().peerId
  await db.upsert('note', { id: 9 })
  const behind = await cli('verify', path, other)
  expect(behind).toMatchObject({ code: 0, stderr: '' })
  expect(behind.stdout).toContain(`of peer ${own} the first has 0 patches and the second 1`)
  await db.exec("UPDATE note SET text = 'past replication' WHERE id = 2", { unsafe: true })
  const differs = await cli('verify', path, other, '--json')
  expect(differs.code).toBe(3)
  expect(JSON.parse(differs.stdout)).toMatchObject({ equal: false, peers: [{ equal: false }] })
  expect(differs.stdout).toContain('past replication')
  expect((await cli('verify', path, other)).stdout).toContain('NOT equal')
  await db.close()
  expect((await cli('status', path, '--json')).stdout).not.toContain(`${own}`)
})

it('verify compares a file with a running peer', async () => {
  const path = await makeFile()
  const seed = join(tempDir(), 'seed.db')
  await cli('backup', path, seed)
  const db = await openReplica({ path: seed, ddl: null })
  const listener = await listen(db)
  const url = `tcp://127.0.0.1:${listener.address().port}`
  expect(await cli('verify', path, url)).toMatchObject({ code: 0, stderr: '' })
  await db.exec('DELETE FROM note WHERE id = 2', { unsafe: true })
  expect(await cli('verify', path, url)).toMatchObject({ code: 3, stderr: '' })
  await listener.close()
  await fails(['verify', path, url], 1, 'no link with', 'ECONNREFUSED')
})

// ---- backup ----

it('backup copies a file that is in use', async () => {
  const path = await makeFile()
  const db = await openReplica({ path, ddl: null })
  await db.upsert('note', { id: 4, text: 'in the WAL' })
  const target = join(tempDir(), 'to.db')
  const { code, stdout, stderr } = await cli('backup', path, target, '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(JSON.parse(stdout)).toEqual({ file: path, target, bytes: readFileSync(target).length })
  const copied = await openReplica({ path: target, ddl: null })
  expect(copied.status().peerId).not.toBe(1)
  expect(await copied.get('SELECT text FROM note WHERE id = 4')).toEqual({ text: 'in the WAL' })
  await fails(['backup', path, target], 1, target, 'REPLIC_LOCKED') // it is open
  await fails(['backup', path, path], 2, 'choose another path')
  await fails(
    ['backup', path, join(tempDir(), 'no', 'to.db')],
    1,
    'the folder must exist',
    'SQLITE_CANTOPEN',
  )
  const text = join(tempDir(), 'text')
  writeFileSync(text, 'somebody needs this')
  await fails(['backup', path, text], 1, 'SQLITE_NOTADB')
  expect(readFileSync(text, 'utf8')).toBe('somebody needs this')
})

// ---- decode ----

it('decode shows the log', async () => {
  const path = await makeFile()
  const { stdout, stderr } = await cli('decode', path)
  expect(stderr).toBe('')
  expect(stdout.replace(/ \d{4}-\S+Z/g, '')).toBe(
    '1.1 note (id=1) text="one"\n1.2 note (id=2)\n1.3 note (id=1) text=null\n',
  )
  const one = await cli('decode', path, '--json', '--after', '1', '--limit', '1', '--table', 'note')
  expect(JSON.parse(one.stdout)).toMatchObject({ origin: 1, sequence: 2, key: { id: 2 }, set: {} })
  expect(await cli('decode', path, '--origin', '5')).toMatchObject({ code: 0, stdout: '' })
  await fails(['decode', path, '--table', 'nota'], 1, "no replicated table 'nota'; there are: note")
})

it('decode reads the examples of the protocol', async () => {
  const protocol = readFileSync(new URL('../docs/protocol.md', import.meta.url), 'utf8')
  const blocks = [...protocol.matchAll(/```hex\n(.*?)```/gs)].map(([, block]) => block)
  const file = join(tempDir(), 'frames.txt')
  writeFileSync(file, blocks.join('\n'))
  const { code, stdout } = await cli('decode', file, '--json')
  expect(code).toBe(0)
  const frames = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(frames.find(({ frame }) => frame === 'SCHEMA')).toMatchObject({
    strict: false,
    fields: [{ name: 'name', type: 'TEXT', rules: '' }, { name: 'deletedAt' }],
  })
  const kinds = new Set(frames.map(({ frame }) => frame))
  expect([...kinds].sort()).toEqual([
    'ACK',
    'ERROR',
    'FORK',
    'HELLO',
    'JUMP',
    'MESSAGE',
    'NEED',
    'PATCHES',
    'SCHEMA',
    'STAGE',
    'TAKE',
  ])
  expect(frames.find(({ frame }) => frame === 'PATCHES').patches).toMatchObject([
    { sequence: 1, table: 'myTable', key: { id: 1, tenantId: 7 }, set: { name: 'Ada' } },
    { sequence: 2, set: { name: null, deletedAt: 1700000000000 } },
  ])
})

it('decode reads what really went over a TCP connection', async () => {
  const [a, b] = [
    await openReplica({ peerId: 1, secret: SECRET, encryption: false }),
    await openReplica({ peerId: 2, secret: SECRET, encryption: false }),
  ]
  const target = await listen(b)
  const captured = []
  const proxy = createServer((near) => {
    const far = netConnect(target.address().port, '127.0.0.1')
    near.on('data', (data) => captured.push(data))
    near.pipe(far).pipe(near)
    for (const socket of [near, far]) socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void proxy.close())
  await new Promise((resolve) => proxy.once('listening', resolve))
  connect(a, { port: proxy.address().port })
  const big = 2n ** 62n
  await b.waitFor(await a.upsert('note', { id: big, text: 'über die Leitung', size: 1 }), 60_000)
  await a.close()
  const file = join(tempDir(), 'stream')
  writeFileSync(file, Buffer.concat(captured))
  const { code, stdout, stderr } = await cli('decode', file, '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const frames = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const kinds = frames.map(({ frame }) => frame)
  expect(kinds.slice(0, 2)).toEqual(['INITIATE', 'SEALED'])
  for (const kind of ['HELLO', 'SCHEMA', 'PATCHES']) expect(kinds).toContain(kind)
  const { patches } = frames.find(({ frame }) => frame === 'PATCHES')
  expect(patches).toMatchObject([
    { table: 'note', key: { id: `${big}` }, set: { text: 'über die Leitung', size: 1 } },
  ])
  writeFileSync(file, Buffer.concat(captured).subarray(0, -1))
  const cut = await cli('decode', file)
  expect(cut.code).toBe(1)
  expect(cut.stderr).toContain('ends in the middle of a frame')
})

const summed = (...frame) => withSum(Buffer.from(frame)).toString('hex')
const MALFORMED = [
  ['01', 'frame 1: byte 1: 1 bytes are wanted, and 0 are left'],
  ['01 04 0b 00 00 00 00 00', 'frame 1: its last four bytes are not the sum of those before'],
  ['02 01', 'frame 1: version 2 is not known here; 1 is'],
  ['01 0c', 'frame 1: there is no type of frame 12'],
  [`${summed(1, 4, 11, 0)}\n\n01 04 0b`, 'frame 2: '],
  [summed(1, 4, 11, 0, 0), 'frame 1: NEED: 1 bytes are left over'],
  [summed(1, 6, 255, 255, 255, 127), 'bytes are wanted'],
  ['hello', "line 1 is neither hexadecimal nor a frame: 'hello'"],
  ['# nothing', 'holds no frame'],
]

it('decode reads an ERROR that holds an origin, and who may only read', async () => {
  const child = start(['decode', '--json'])
  child.end([summed(1, 6, 1, 67, 1, 84, 11, 3), summed(1, 1, 3, 11, 7, 0, 0, 0, 0)].join('\n\n'))
  const { code, stdout } = await child.ended
  const [error, hello] = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(code).toBe(0)
  expect(error).toMatchObject({ code: 'C', message: 'T', origin: 11, after: 3 })
  expect(hello).toMatchObject({ wantsAnswer: true, mayWrite: false, peerId: 11 })
})

it('decode says what is wrong with what it is given', async () => {
  await Promise.all(
    MALFORMED.map(async ([text, words]) => {
      const child = start(['decode'])
      child.end(text)
      const { code, stderr } = await child.ended
      expect(code).toBe(1)
      for (const word of ['decode: stdin', words, '(REPLIC_PROTOCOL)'])
        expect(stderr).toContain(word)
    }),
  )
})
