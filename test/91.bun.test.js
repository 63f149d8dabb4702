// The contract of all transports on Bun: see bun/contract.js.

import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { isTested } from './chaos/play.js'
import { bunProgram, runProcess } from './helpers.js'
import { whyNoServer } from './servers.js'

const contract = fileURLToPath(new URL('./bun/contract.js', import.meta.url))
const NEEDS = { nats: 'nats-server', redis: 'redis-server' }
const transports = ['tcp', 'tls', 'websocket', 'http', 'udp', 'bus', 'nats', 'redis'].filter(
  (name) => !NEEDS[name] || isTested(name, whyNoServer(NEEDS[name])),
)

it.each(transports)(
  '%s keeps the contract on Bun',
  async (name) => {
    const env = { ...process.env, TRANSPORT: name }
    const args = ['test', '--timeout', '300000', contract]
    const { code, stdout, stderr } = await runProcess(bunProgram(), args, { env })
    const report = `${stdout}${stderr}` // "(fail) ..." names what has failed
    expect([code, report]).toEqual([0, expect.stringMatching(/\n *[1-9]\d* pass\n/)])
  },
  900_000,
)
