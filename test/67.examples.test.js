// The examples of transports do what they say. (Those of HTTP and WebSocket are tested beside them.)

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { authority } from './certificates.js'
import { isTested } from './chaos/play.js'
import { runProcess, tempDir } from './helpers.js'
import { freePort, startNats, startRedis, whyNoServer } from './servers.js'

const run = (name, ...args) => {
  const main = fileURLToPath(new URL(`../examples/${name}/main.js`, import.meta.url))
  return runProcess(execPath, [main, ...args])
}

/** What an example prints in which `n` peers share their notes. */
const notes = (n, before = '') => ({
  code: 0,
  signal: null,
  stdout: `${before}[\n${Array.from({ length: n }, (_, i) => `  { id: '${i + 1}', text: 'by peer ${i + 1}' }`).join(',\n')}\n]\n`,
  stderr: '',
})

describe('the example of', () => {
  it('TCP, with TLS', async () => {
    const { ca, sign } = authority()
    const { cert, key } = sign({ name: 'peer' })
    const dir = tempDir()
    const files = [ca, cert, key].map((text, i) => {
      const path = join(dir, `${i}.pem`)
      writeFileSync(path, text)
      return path
    })
    const stdout = `link: up\n[ { id: '1', text: 'by peer 1' }, { id: '2', text: 'by peer 2' } ]\nlink: down\n`
    expect(await run('tcp', ...files)).toEqual({ ...notes(2), stdout })
    expect((await run('tcp')).stderr).toContain('usage: main.js ca.pem peer.pem peer.key')
  })

  it('UDP, with multicast', async () => {
    expect(await run('udp', '127.0.0.1', await freePort())).toEqual(notes(3))
  })

  it.skipIf(!isTested('NATS', whyNoServer('nats-server')))('NATS', async () => {
    const server = await startNats()
    onTestFinished(() => server.close())
    expect(await run('nats', `127.0.0.1:${server.port}`)).toEqual(notes(3))
    await server.kill()
    const { code, stderr } = await run('nats', `127.0.0.1:${server.port}`)
    expect([code, stderr]).toEqual([1, expect.stringContaining('start nats-server')])
  })

  it.skipIf(!isTested('Redis', whyNoServer('redis-server')))('Redis', async () => {
    const server = await startRedis()
    onTestFinished(() => server.close())
    const url = `redis://127.0.0.1:${server.port}`
    expect(await run('redis', url)).toEqual(notes(3))
    await server.kill()
    const { code, stderr } = await run('redis', url)
    expect([code, stderr]).toEqual([1, expect.stringContaining('start redis-server')])
  })
})
