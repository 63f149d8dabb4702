// How many threads the pool has that the addon's work runs on.

import { availableParallelism } from 'node:os'

const NODE_DEFAULT = 4
const MOST = 1024

/** By the environment as it was when the process began, as each runtime reads it. */
export function poolThreads(env, { bun }) {
  if (bun === undefined) return ofNode(env.UV_THREADPOOL_SIZE)
  for (const name of ['UV_THREADPOOL_SIZE', 'GOMAXPROCS']) {
    const given = Number.parseInt(env[name], 10)
    if (given >= 2) return Math.min(given, MOST)
  }
  return Math.max(2, availableParallelism())
}

// libuv reads it with atoi(), and makes one thread of what is none.
function ofNode(text) {
  if (text === undefined) return NODE_DEFAULT
  const given = Number.parseInt(text, 10) || 1
  return given < 0 ? MOST : Math.min(given, MOST)
}
