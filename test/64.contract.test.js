// Buses keep the contract of all transports: one within the process, NATS and Redis.

import { isTested } from './chaos/play.js'
import { whyNoServer } from './servers.js'
import { adapter as bus } from './transport/bus.js'
import { contract } from './transport/contract.js'
import { adapter as nats } from './transport/nats.js'
import { adapter as redis } from './transport/redis.js'

contract(bus)
if (isTested('NATS', whyNoServer('nats-server'))) contract(nats)
if (isTested('Redis', whyNoServer('redis-server'))) contract(redis)
