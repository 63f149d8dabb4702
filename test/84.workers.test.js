// Replicas in worker threads: several in several workers, linked with each other; and terminate() in every
// state, which `npm run workers` does 200 times in each, and at every call of Node-API that Node then refuses.

import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { env, execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { bunProgram, childPath, NOTES, runProcess, tempDir } from './helpers.js'

const TIMES = 12
const { CC = 'cc', CXX = 'c++', NM = 'nm' } = env
const lib = (name) => JSON.stringify(new URL(`../lib/${name}`, import.meta.url).href)

it.each([
  ['Node', execPath],
  ['Bun', bunProgram()],
])(
  'a worker can be terminated in every state, on %s',
  async (_, runtime) => {
    const result = await runProcess(runtime, [childPath('workers.js'), tempDir(), `${TIMES}`])
    expect(result).toMatchObject({ code: 0, signal: null, stderr: '' })
    expect(result.stdout).toMatch(/^opening\n(\w+\n){11,}closed\nclosed\n$/)
  },
  600_000,
)

/** A package whose addon has test/ending/ending.c between itself and Node. */
function packageThatEnds() {
  const at = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url))
  const root = tempDir()
  cpSync(at('lib'), join(root, 'lib'), { recursive: true })
  cpSync(at('package.json'), join(root, 'package.json'))
  mkdirSync(join(root, 'build/Release'), { recursive: true })
  const source = at('test/ending/ending.c')
  const text = readFileSync(source, 'utf8')
  const wrapped = [...text.matchAll(/^ENDS\((\w+)/gm)].map(([, name]) => name)
  const answered = / runs no JavaScript:([^/]*)/.exec(text)[1].match(/\w+/g)
  const { nodedir } = JSON.parse(
    readFileSync(at('build/config.gypi'), 'utf8').replace(/^#.*/, ''),
  ).variables
  const object = join(root, 'ending.o')
  execFileSync(CC, [
    '-O1',
    '-fPIC',
    '-isystem',
    join(nodedir, 'include/node'),
    '-c',
    source,
    '-o',
    object,
  ])
  const objects = readdirSync(join(OBJECTS, 'replic_sqlite/src/napi')).filter((name) =>
    name.endsWith('.o'),
  )
  execFileSync(CXX, [
    ...['-shared', '-pthread', '-o', join(root, 'build/Release/replic_sqlite.node')],
    ...wrapped.map((name) => `-Wl,--wrap=napi_${name}`),
    ...objects.map((name) => join(OBJECTS, 'replic_sqlite/src/napi', name)),
    ...[object, join(OBJECTS, 'replic_core.a'), join(OBJECTS, 'sqlite3.a')],
  ])
  return { root, functions: [...wrapped, ...answered] }
}

const BUILT = fileURLToPath(new URL('../build/Release/replic_sqlite.node', import.meta.url))
const OBJECTS = join(dirname(BUILT), 'obj.target')
const hasObjects = process.platform === 'linux' && existsSync(OBJECTS)
if (!hasObjects) console.warn('NOT TESTED: the end of an environment needs Linux and a built addon')

it.skipIf(!hasObjects)(
  'a worker may end at each call of Node-API',
  async () => {
    const { root, functions } = packageThatEnds()
    const symbols = execFileSync(NM, ['-D', '--undefined-only', BUILT], { encoding: 'utf8' })
    const called = [...symbols.matchAll(/ napi_(\w+)/g)].map(([, name]) => name)
    expect(called).toContain('create_promise')
    expect(called.filter((name) => !functions.includes(name))).toEqual([]) // it belongs into one of the two lists
    const program = fileURLToPath(new URL('./ending/run.js', import.meta.url))
    const result = await runProcess(execPath, [program, root, tempDir()])
    expect(result).toMatchObject({ code: 0, signal: null, stderr: '' })
    expect(Number(result.stdout)).toBeGreaterThan(100) // places
  },
  600_000,
)

it('eight replicas in four workers, linked over TCP, become equal', async () => {
  const dir = tempDir()
  const worker = join(dir, 'worker.mjs')
  writeFileSync(
    worker,
    `import { parentPort, workerData } from 'node:worker_threads'
    import { Replica } from ${lib('index.js')}
    import { connect, listen } from ${lib('transport/tcp.js')}
    const { peers, port, dir } = workerData
    const dbs = await Promise.all(peers.map((peerId) => Replica.open(dir + '/' + peerId + '.db', { peerId })))
    for (const db of dbs) await db.migrate([{ up: ${JSON.stringify(NOTES)} }])
    const [first, second] = dbs
    const listener = await listen(first)
    connect(second, { port: listener.address().port })
    if (port) connect(first, { port })
    parentPort.postMessage(listener.address().port)
    parentPort.once('message', async (tokens) => {
      for (const db of dbs) for (const token of tokens) await db.waitFor(token, 60_000)
      const rows = await Promise.all(dbs.map((db) => db.all('SELECT id, text FROM note ORDER BY id')))
      await Promise.all(dbs.map((db) => db.close()))
      parentPort.postMessage(rows.map((each) => JSON.stringify(each)))
    })
    const write = async (db, i) => {
      for (let n = 0; n < 50; n++) await db.upsert('note', { id: n, text: peers[i] + ' ' + n })
    }
    await Promise.all(dbs.map(write))
    parentPort.postMessage(peers.map((peerId) => peerId + '.50'))`,
  )
  const program = join(dir, 'program.mjs')
  writeFileSync(
    program,
    `import { Worker } from 'node:worker_threads'
    const next = (worker) => new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    const workers = []
    const tokens = []
    let port
    for (let i = 0; i < 4; i++) {
      const workerData = { peers: [2 * i + 1, 2 * i + 2], port, dir: ${JSON.stringify(dir)} }
      const worker = new Worker(${JSON.stringify(worker)}, { workerData })
      port = await next(worker) // a chain
      workers.push(worker)
      tokens.push(...(await next(worker)))
    }
    for (const worker of workers) worker.postMessage(tokens)
    const rows = (await Promise.all(workers.map(next))).flat()
    console.log(rows.length, new Set(rows).size, JSON.parse(rows[0]).length)`,
  )
  expect(await runProcess(execPath, [program])).toEqual({
    code: 0,
    signal: null,
    stderr: '',
    stdout: '8 1 50\n',
  })
})
