// A new node: an empty peer takes 500,000 rows over TCP on this machine; against INSERT ... SELECT of the same
// tables and indexes from one attached file into another, in one transaction.

import { secondsToApply, withSource } from './apply.js'
import { floorRate } from './harness.js'

const ROWS = 500_000
const COPY = 'C, INSERT ... SELECT'

export const benches = [
  {
    name: 'catchup',
    title: 'an empty peer takes 500,000 rows, NORMAL',
    unit: 'seconds',
    around: (measure) =>
      withSource({ rows: ROWS }, (source) =>
        measure({
          'replic-sqlite': () => secondsToApply(source, 'NORMAL', ROWS),
          [COPY]: () => floorRate('copy', 'key', 'up', 'NORMAL', ROWS, 1000),
        }),
      ),
    reach: { [COPY]: 3 },
    rounds: 3,
  },
]
