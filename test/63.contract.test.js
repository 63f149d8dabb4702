// UDP keeps the contract of all transports.

import { contract } from './transport/contract.js'
import { adapter } from './transport/udp.js'

contract(adapter)
