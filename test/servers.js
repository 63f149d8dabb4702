// A nats-server, a redis-server and an nginx (Debian's nats-server, redis-server, nginx-light), for tests: on
// free ports of 127.0.0.1, their files in folders of their own. No test runner, so that children can import it.

import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Why a server cannot be started here, as { why, isFixable }; null if it can. */
export function whyNoServer(command) {
  const { error } = spawnSync(command, ['--version'])
  return error ? { why: `${error.message} (package ${command})`, isFixable: true } : null
}

/** NATS, whose messages have at most `maxPayload` bytes. */
export const startNats = ({ maxPayload = 1024 * 1024 } = {}) =>
  start('nats-server', /Server is ready/, (port, dir) => {
    const config = join(dir, 'nats.conf')
    writeFileSync(config, `max_payload: ${maxPayload}\n`)
    return ['-a', '127.0.0.1', '-p', port, '-c', config]
  })

export const startRedis = () =>
  start('redis-server', /Ready to accept connections/, (port, dir) => [
    ...['--bind', '127.0.0.1', '--port', port],
    ...['--dir', dir, '--save', ''],
  ])

/** A cluster of three masters: { ports, close() }, once it takes calls. */
export async function startRedisCluster() {
  const servers = []
  for (let i = 0; i < 3; i++) {
    const busPort = await freePort() // its default, port + 10,000, may be no port at all
    servers.push(
      await start('redis-server', /Ready to accept connections/, (port, dir) => [
        ...['--bind', '127.0.0.1', '--port', port, '--dir', dir, '--save', ''],
        ...['--cluster-enabled', 'yes', '--cluster-port', busPort],
      ]),
    )
  }
  const addresses = servers.map(({ port }) => `127.0.0.1:${port}`)
  const create = ['--cluster', 'create', ...addresses, '--cluster-replicas', '0', '--cluster-yes']
  await promisify(execFile)('redis-cli', create)
  return {
    ports: servers.map(({ port }) => Number(port)),
    close: () => Promise.all(servers.map((server) => server.close())),
  }
}

/** Where nginx is; undefined: nowhere. */
export const NGINX = ['/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/local/bin/nginx'].find(
  existsSync,
)

/**
 * An nginx: `http(port)` is what its http block says, beside where files go; `events` the same of that block.
 * Resolves with { port, log('access' or 'error') -> text, close() }, once it answers.
 */
export async function startNginx(http, { events = '' } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'replic-nginx-'))
  mkdirSync(join(dir, 'logs'))
  const port = await freePort()
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const temp = kinds.map((kind) => `${kind}_temp_path ${dir}/${kind};`).join(' ')
  const user = process.getuid?.() === 0 ? 'user root;' : '' // else it may not write in `dir`
  writeFileSync(
    join(dir, 'nginx.conf'),
    `${user} daemon off; pid ${dir}/pid; error_log ${dir}/logs/error.log; worker_processes 1;
     events { ${events} }
     http { access_log ${dir}/logs/access.log; ${temp} ${http(port)} }`,
  )
  const child = spawn(NGINX, ['-p', dir, '-c', join(dir, 'nginx.conf')], { stdio: 'pipe' })
  let said = ''
  child.stderr.on('data', (data) => {
    said += data
  })
  const ended = once(child, 'exit')
  for (let answers = false; !answers; ) {
    if (child.exitCode !== null) throw new Error(`nginx: ${said}`)
    answers = await fetch(`http://127.0.0.1:${port}/`).catch(() => false) // whatever status
  }
  return {
    port,
    log: (name) => readFileSync(join(dir, 'logs', `${name}.log`), 'utf8'),
    close: async () => {
      child.kill('SIGTERM') // else its workers stay
      await ended
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** { port, kill() at once, restart() on the same port, signal(name), close() }, once it is ready. */
async function start(command, ready, argsOf) {
  const dir = mkdtempSync(join(tmpdir(), `replic-${command}-`))
  const port = await freePort()
  let server
  const run = async () => {
    server = spawn(command, argsOf(port, dir), { stdio: ['ignore', 'pipe', 'pipe'] })
    const { stdout, stderr } = server
    let output = ''
    await new Promise((resolve, reject) => {
      for (const stream of [stdout, stderr]) {
        stream.on('data', (data) => {
          output = `${output}${data}`.slice(-10_000)
          if (ready.test(output)) resolve()
        })
      }
      server.on('error', reject)
      server.on('exit', () => reject(new Error(`${command} has ended: ${output}`)))
    })
  }
  const kill = async () => {
    if (server.exitCode !== null || server.signalCode !== null) return
    const ended = once(server, 'exit')
    server.kill('SIGKILL')
    await ended
  }
  await run()
  return {
    port,
    kill,
    restart: run,
    signal: (name) => server.kill(name),
    close: async () => {
      await kill()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return `${port}`
}
