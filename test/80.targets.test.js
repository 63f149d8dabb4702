// npx replic-sqlite: every command and every kind of target, as it is found: peers over each transport, with the
// right secret, a wrong one and none; files where nothing can be written, and those of earlier layouts.

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Replica } from '../lib/index.js'
import { handler } from '../lib/transport/http.js'
import { isTested } from './chaos/play.js'
import { NOTES, openReplica, runProcess, startProcess, tempDir } from './helpers.js'
import { freePort } from './servers.js'

const MAIN = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url))
const SECRET = 'a secret of the tests, long enough'
const LONG_MS = `${2 ** 31 - 1}` // what is known at once must not wait for that

const cli = (...args) => runProcess(execPath, [MAIN, ...args])

/** A file of peer `peerId` with a note; closed. */
async function makeFile(dir, peerId = 1) {
  const path = join(dir, 'a.db')
  const db = await Replica.open(path, { peerId })
  await db.migrate([{ name: 'notes', up: NOTES }])
  await db.upsert('note', { id: peerId, text: 'one' })
  await db.close()
  return path
}

describe('a peer', () => {
  /** `serve` at every transport that it has, and the same file's handler over HTTP. */
  async function peers() {
    const path = await makeFile(tempDir(), 7)
    const secretFile = join(tempDir(), 'secret')
    writeFileSync(secretFile, SECRET)
    const urls = ['tcp://127.0.0.1:0', 'ws://127.0.0.1:0/replic', 'udp://127.0.0.1:0']
    const listen = urls.flatMap((url) => ['--listen', url])
    const metrics = ['--metrics', 'http://127.0.0.1:0']
    const args = [MAIN, 'serve', path, ...listen, ...metrics, '--secret-file', secretFile]
    const child = startProcess(execPath, args)
    const found = []
    for (let line = ''; !line.startsWith('peer 7 serves'); line = await child.line()) {
      if (line === null) throw new Error((await child.ended).stderr)
      found.push(...line.split(' ').filter((word) => word.includes('://')))
    }
    const [tcp, ws, udp, page] = found
    const db = await openReplica({ peerId: 8, secret: SECRET })
    const server = createServer(handler(db)).listen(0, '127.0.0.1')
    onTestFinished(() => void server.close().closeAllConnections())
    await new Promise((resolve) => server.once('listening', resolve))
    const http = `http://127.0.0.1:${server.address().port}/`
    return { tcp, ws, udp, http, page, secretFile }
  }

  const url = (scheme, port) => `${scheme}://127.0.0.1:${port}`

  it('answers, refuses, is not there: each said at once, with its exit code', async () => {
    const { tcp, ws, udp, http, page, secretFile } = await peers()
    const wrong = join(tempDir(), 'wrong')
    writeFileSync(wrong, 'another secret, long enough too')
    const path = await makeFile(tempDir())
    const nobody = await freePort()
    const known = ['--secret-file', secretFile]
    const rows = [tcp, ws, udp, http].flatMap((at) => [
      [['status', at, ...known], 0, `answers at ${at}`],
      [['status', at, '--secret-file', wrong], 1, 'another secret', 'REPLIC_AUTH'],
      [['status', at], 1, '--secret-env or --secret-file', 'REPLIC_AUTH'],
      [['verify', path, at, ...known], 0, ': equal'],
      [['verify', path, at], 1, '--secret-env or --secret-file', 'REPLIC_AUTH'],
    ])
    rows.push(
      ...['tcp', 'ws', 'http'].map((scheme) => [
        ['status', url(scheme, nobody)],
        1,
        'nobody listens there',
        'ECONNREFUSED',
      ]),
      [['verify', path, url('tcp', nobody)], 1, 'nobody listens there', 'ECONNREFUSED'],
      [['status', ws.replace('/replic', '/other'), ...known], 1, 'answered 404', 'REPLIC_PROTOCOL'],
      [['status', page.replace('metrics', 'other')], 1, 'answers 404', 'REPLIC_NOT_FOUND'],
      [['status', page], 0, 'replic_'],
      [['status', page.replace('metrics', 'status')], 0, '"peerId": 7'],
      [['status', http.replace('http', 'https')], 1, 'is it http://', 'EPROTO'],
      [['status', tcp.replace('tcp', 'tls'), ...known], 1, 'listen with tls?', 'ECONNRESET'],
      [['status', 'tcp://no.such.host.invalid:1'], 1, 'there is no such host', 'E'],
    )
    await Promise.all(
      rows.map(async ([args, code, ...words]) => {
        const result = await cli(...args, '--timeout-ms', LONG_MS)
        const said = code === 0 ? result.stdout : result.stderr
        expect({ args, code: result.code, said }).toEqual({ args, code, said })
        for (const word of words) expect(said, args.join(' ')).toContain(word)
        expect(code === 0 ? result.stderr : result.stdout).toBe('')
      }),
    )
    // Over UDP nobody says that nobody is there.
    const silent = await cli('status', url('udp', nobody), '--timeout-ms', '300')
    expect(silent).toMatchObject({ code: 1, stdout: '' })
    expect(silent.stderr).toContain('no peer has answered')
  })
})

describe('a file of an earlier layout', () => {
  it.each(['0.1.0', 'layout-1'])('%s can be looked at, and stays as it is', async (name) => {
    const dir = join(tempDir(), name)
    cpSync(new URL(`fixtures/${name}`, import.meta.url), dir, { recursive: true })
    const path = join(dir, 'a.db')
    const before = readFileSync(path)
    const commands = [
      ['status', path],
      ['verify', path],
      ['decode', path],
      ['backup', path, `${path}.copy`],
    ]
    for (const args of [...commands, ['verify', path, `${path}.copy`]]) {
      const { code, stdout, stderr } = await cli(...args)
      expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' })
      expect(stdout).not.toBe('')
    }
    expect(readFileSync(path)).toEqual(before)
  })
})

// ---- where nothing can be written ----

const mayMount = process.platform === 'linux' && process.getuid() === 0
const obstacle = mayMount ? null : { why: 'only root may mount, and drop rights', isFixable: true }
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`

/** Runs the CLI where `dir` is mounted read-only. */
function onReadOnlyMount(dir, args) {
  const at = quoted(dir)
  const mount = `mount --bind ${at} ${at} && mount -o remount,bind,ro ${at}`
  const command = [execPath, MAIN, ...args].map(quoted).join(' ')
  return runProcess('unshare', ['--mount', 'sh', '-c', `${mount} && exec ${command}`])
}

/** Runs the CLI as somebody for whom rights of files hold, and who has none to write in `dir`. */
async function withoutRights(dir, args) {
  const modes = [[dir, 0o555], ...readdirSync(dir).map((name) => [join(dir, name), 0o444])]
  for (const [path, mode] of modes) chmodSync(path, mode)
  const drop = '--bounding-set=-dac_override,-dac_read_search'
  const result = await runProcess('setpriv', [drop, execPath, MAIN, ...args])
  for (const [path, mode] of modes) chmodSync(path, mode | 0o200)
  return result
}

const KILLED = `
  const { Replica } = await import(${JSON.stringify(new URL('../lib/index.js', import.meta.url).href)})
  const db = await Replica.open(process.argv[1])
  await db.upsert('note', { id: 2, text: 'in the WAL' })
  process.kill(process.pid, 'SIGKILL')`

/** A file that was not closed: [path of the whole, path of the same without -shm]. */
async function killedFile() {
  const path = await makeFile(tempDir())
  const { signal } = spawnSync(execPath, ['--input-type=module', '-e', KILLED, path])
  expect(signal).toBe('SIGKILL')
  const other = join(tempDir(), 'a.db')
  for (const part of ['', '-wal', '-replic']) copyFileSync(path + part, other + part)
  return [path, other]
}

describe.skipIf(!isTested('files on a read-only medium', obstacle))(
  'where nothing can be written',
  () => {
    const ways = {
      'a read-only mount': [onReadOnlyMount, 'mounted read-only'],
      'no rights': [withoutRights, 'chmod u+rw'],
    }

    /** Each command does what it does elsewhere, and leaves the folder as it was. */
    async function looksAt(path, run, notes) {
      const dir = dirname(path)
      const state = () => readdirSync(dir).map((name) => [name, readFileSync(join(dir, name))])
      const before = state()
      const target = join(tempDir(), 'copy.db')
      const rows = [
        [['status', path], `table       note: ${notes} rows`],
        [['verify', path], 'is sound'],
        [['decode', path], 'text="one"'],
        [['backup', path, target], 'bytes'],
      ]
      for (const [args, word] of rows) {
        const { code, stdout, stderr } = await run(dir, args)
        expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' })
        expect(stdout).toContain(word)
      }
      expect(state()).toEqual(before)
      const copied = await openReplica({ path: target, ddl: null })
      expect(await copied.get('SELECT count(*) AS n FROM note')).toEqual({ n: notes })
    }

    describe.each(Object.entries(ways))('%s', (_, [run, remedy]) => {
      it('a file that is at rest', async () => looksAt(await makeFile(tempDir()), run, 1))

      it('a file whose WAL was left behind, with and without its index', async () => {
        for (const path of await killedFile()) await looksAt(path, run, 2)
      })

      it('a path full of what means something in a URI', async () => {
        const dir = join(tempDir(), 'a ?#%41&b=c;é')
        mkdirSync(dir)
        await looksAt(await makeFile(dir), run, 1)
      })

      it('serve says that it cannot', async () => {
        const path = await makeFile(tempDir())
        const args = ['serve', path, '--listen', 'tcp://127.0.0.1:0']
        const { code, stderr } = await run(dirname(path), args)
        expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(path) })
        expect(stderr).toContain(remedy)
      })
    })

    it('a file that is in use elsewhere shows its last commit', async () => {
      const path = await makeFile(tempDir())
      const db = await openReplica({ path, ddl: null })
      await db.upsert('note', { id: 2, text: 'in the WAL' })
      const { code, stdout } = await onReadOnlyMount(dirname(path), ['status', path])
      expect(code).toBe(0)
      expect(stdout).toContain('table       note: 2 rows')
    })

    it('what may not be read is said', async () => {
      const path = await makeFile(tempDir())
      chmodSync(path, 0o000)
      for (const name of ['status', 'verify', 'backup', 'decode']) {
        const rest = name === 'backup' ? [`${path}.copy`] : []
        const drop = '--bounding-set=-dac_override,-dac_read_search'
        const result = await runProcess('setpriv', [drop, execPath, MAIN, name, path, ...rest])
        expect(result).toMatchObject({ code: 1, stdout: '' })
        expect(result.stderr).toContain(`${path} cannot be opened`)
        expect(result.stderr).toContain('check the rights')
      }
    })
  },
)
