import type { FastifyPluginAsync } from 'fastify'
import type { Replica, ReplicState, SessionOptions } from './index.js'

/** Options of the plugin. */
export interface PluginOptions extends SessionOptions {
  /** Whose tokens they are. */
  db: Replica
}

/**
 * Read your own write, as a plugin of Fastify 5, for all routes of the application: `app.register(readYourWrite,
 * { db })`. See Replica.readYourWrite(). `request.replic` tells a handler whether what it reads may be too old.
 * Wrong options are REPLIC_USAGE when the application starts.
 */
export const readYourWrite: FastifyPluginAsync<PluginOptions>

declare module 'fastify' {
  interface FastifyRequest {
    replic: ReplicState
  }
}
