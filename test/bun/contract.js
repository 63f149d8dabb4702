// The contract of all transports on Bun, by Bun's own test runner, to which `vitest` is a name of its own:
//   TRANSPORT=tcp bun test --timeout 300000 ./test/bun/contract.js

import { contract } from '../transport/contract.js'

const { adapter } = await import(`../transport/${process.env.TRANSPORT}.js`)
contract(adapter)
