// The contract of all transports on Bun: see bun/contract.js.

import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { isTested } from './chaos/play.js'
import { bunProgram, hasIPv6, runProcess } from './helpers.js'
import { whyNoServer } from './servers.js'

const contract = fileURLToPath(new URL('./bun/contract.js', import.meta.url))
const tls = fileURLToPath(new URL('./66.tls.test.js', import.meta.url)) // has more than the contract
const udp = fileURLToPath(new URL('./63.udp.test.js', import.meta.url))
const NEEDS = { nats: 'nats-server', redis: 'redis-server' }
const transports = ['tcp', 'tls', 'websocket', 'http', 'udp', 'bus', 'nats', 'redis'].filter(
  (name) => !NEEDS[name] || isTested(name, whyNoServer(NEEDS[name])),
)

/** Runs tests on Bun's own runner. Of its report, "(fail) ..." names what has failed. */
async function passes(args, env) {
  const options = { env: { ...process.env, ...env } }
  const all = ['test', '--timeout', '300000', ...args]
  const { code, stdout, stderr } = await runProcess(bunProgram(), all, options)
  const lines = `${stdout}${stderr}`.split('\n').filter((line) => !line.startsWith('(pass)'))
  const report = lines.join('\n')
  if (code !== 0) console.error(report) // whole: an assertion shows only a part of it
  expect([code, report]).toEqual([0, expect.stringMatching(/\n *[1-9]\d* pass\n/)])
}

it.each(transports)('%s keeps the contract on Bun', { timeout: 900_000 }, (name) =>
  passes([name === 'tls' ? tls : contract], { TRANSPORT: name }),
)

it.skipIf(!hasIPv6)('UDP over IPv6 on Bun', () => passes([udp, '-t', 'IPv6']))
