// Ten test files in parallel. The pool is chosen on the command line: --pool threads, forks or vmThreads.

import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.test.js'],
    maxWorkers: 4,
    globalSetup: './open-files.js',
    // A native addon is loaded by Node itself, once per process, and not by Vite.
    server: { deps: { external: [/replic-sqlite/] } },
  },
})
