// Signals through npx: npm starts a program by a shell, and hands SIGTERM on to that shell only. Where sh is
// dash, that ends without telling the program, which would go on with nobody to end it.

import { readFileSync } from 'node:fs'

const LOOK_MS = 100

/** Calls `ended` once npm (npx, npm start, ...), or the shell by which it has started this process, is gone. */
export function whenNpmEnds(ended) {
  if (process.env.npm_lifecycle_event === undefined) return
  const timer = setInterval(() => {
    if (starters() === startedBy) return
    clearInterval(timer)
    ended()
  }, LOOK_MS)
  timer.unref()
}

// The process that has started this one; and if that is npm's shell, the one that has started it.
function starters() {
  const parent = process.ppid
  return isShell(parent) ? `${parent} ${parentOf(parent)}` : `${parent}`
}

// Of processes only Linux tells in files: elsewhere npm itself may end unseen, and its shell not.
function isShell(pid) {
  return told(pid, 'cmdline').split('\0')[1] === '-c'
}

function parentOf(pid) {
  return /\) \S (\d+) /.exec(told(pid, 'stat'))?.[1]
}

function told(pid, what) {
  try {
    return readFileSync(`/proc/${pid}/${what}`, 'utf8')
  } catch {
    return ''
  }
}

const startedBy = starters()
