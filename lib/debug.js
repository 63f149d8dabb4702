// NODE_DEBUG=replic: what is told to whoever looks for the cause of something.

import { debuglog } from 'node:util'

export const debug = debuglog('replic')
export const tracing = debug.enabled ?? /\breplic\b/i.test(process.env.NODE_DEBUG) // Bun has no `enabled`
