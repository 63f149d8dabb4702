// backup(): a copy of the file, made beside its target a slice at a time, and put there in one step.
// The order of the steps, and what they leave after a failure, is the core's: src/core/file/backup.c.

import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { ReplicError, usage } from './base/errors.js'
import { show, text } from './base/options.js'

const SLICE_PAGES = 1024 // then others have their turn on the thread

/**
 * Copies the database `source`, open as `native`, to `path`. Resolves with { totalPages, remainingPages }
 * when the copy is in its place and synced; rejects when nothing of it is left.
 */
export async function backup(native, source, path, { progress, signal }) {
  if (!text.accepts(path) || path.includes('\0') || path === ':memory:') {
    throw usage(
      `backup: path must be the path of a file, or where one can be created, not ${show(path)}`,
    )
  }
  signal?.throwIfAborted()
  const target = resolve(path)
  const [own, there] = await Promise.all([stat(source), stat(target).catch(() => null)])
  if (there && !there.isFile()) throw usage(`backup: ${target} is no file: name one in it`)
  if (there?.ino === own.ino && there.dev === own.dev) {
    throw usage(`backup: ${target} is the database itself: choose another path`) // a hard link too
  }
  const cursor = await native.snapshotOpen()
  try {
    await cursor.backupStart(target)
    let pages
    do {
      signal?.throwIfAborted()
      pages = await cursor.backupCopy(SLICE_PAGES)
      tell(progress, pages)
    } while (pages.remainingPages > 0)
    signal?.throwIfAborted()
    await cursor.backupEnd()
    return pages
  } finally {
    await cursor.close()
  }
}

function tell(progress, pages) {
  try {
    progress?.(pages)
  } catch (error) {
    const message = `backup: progress has thrown: ${error?.message ?? error}`
    throw new ReplicError('REPLIC_USAGE', message, { cause: error })
  }
}
