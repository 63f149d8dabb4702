// All benchmarks, in the order of their table.

import { benches as applying } from './apply.js'
import { benches as catchingUp } from './catchup.js'
import { benches as fanningOut } from './fanout.js'
import { benches as waiting } from './latency.js'
import { benches as looping } from './loop.js'
import { benches as opening } from './open.js'
import { benches as reading } from './read.js'
import { benches as space } from './space.js'
import { benches as writing } from './write.js'

export const ALL = [
  ...writing,
  ...applying,
  ...catchingUp,
  ...reading,
  ...waiting,
  ...fanningOut,
  ...space,
  ...looping,
  ...opening,
]
