// The reverse proxies whose configurations are in examples/proxy, started with addresses of a test's.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { tempDir, until } from './helpers.js'
import { freePort } from './servers.js'

const find = (...paths) => paths.find(existsSync)
export const PROXIES = {
  nginx: {
    program: find('/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/local/bin/nginx'),
    file: 'nginx.conf',
    // Where files go, and no daemon: what a system's own nginx.conf says before.
    adapt: (text, dir) => {
      const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (kind) => `${kind}_temp_path ${dir}/${kind};`,
      )
      const user = process.getuid?.() === 0 ? 'user root;' : ''
      const main = `${user} daemon off; pid ${dir}/pid; error_log ${dir}/logs/error.log;`
      return `${main}\n${text.replace('http {', `http { access_log off; ${temp.join(' ')}`)}`
    },
    args: (dir, path) => ['-p', dir, '-c', path],
    signal: 'SIGTERM', // else its workers stay
  },
  HAProxy: {
    program: find('/usr/sbin/haproxy', '/usr/local/sbin/haproxy', '/usr/local/bin/haproxy'),
    file: 'haproxy.cfg',
    args: (_, path) => ['-db', '-f', path],
  },
  Caddy: {
    program: find('/usr/bin/caddy', '/usr/local/bin/caddy'),
    file: 'Caddyfile',
    args: (_, path) => ['run', '--adapter', 'caddyfile', '--config', path],
  },
}
export const missing = Object.keys(PROXIES).filter((name) => !PROXIES[name].program)
if (missing.length && process.env.CI) throw new Error(`not installed: ${missing}`)
if (missing.length) console.warn(`SKIPPED: ${missing}: not installed (nginx-light, haproxy, caddy)`)

/** Starts a proxy before the nodes at three ports, which answer already; gives its origin. */
export async function startBalancer(
  { program, file, adapt = (text) => text, args, signal = 'SIGKILL' },
  nodes,
) {
  const dir = tempDir()
  const port = await freePort()
  const ports = { 8080: port, 8011: nodes[0], 8012: nodes[1], 8013: nodes[2] }
  const example = fileURLToPath(new URL(`../examples/proxy/${file}`, import.meta.url))
  const text = readFileSync(example, 'utf8').replace(/:(80\d\d)\b/g, (_, of) => `:${ports[of]}`)
  mkdirSync(join(dir, 'logs'))
  writeFileSync(join(dir, file), adapt(text, dir))
  const env = { ...process.env, HOME: dir, XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir }
  const child = spawn(program, args(dir, join(dir, file)), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      said += data
    })
  }
  const ended = once(child, 'exit')
  onTestFinished(async () => {
    child.kill(signal)
    await ended
  })
  const origin = `http://127.0.0.1:${port}`
  await until(() => {
    if (child.exitCode !== null) throw new Error(`${program}: ${said}`)
    return fetch(origin).then(
      () => true,
      () => false,
    )
  })
  return origin
}
