// What an operator, or the application itself, does to the file of a process that writes, and what comes of it.
// The rows are those of the table in docs/reliability.md: test/55 plays each of them, with both durabilities;
// 'an operator's day' plays them at random (scenarios.js).

import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { bunProgram } from '../programs.js'

const run = promisify(execFile)
const SFTP = '/usr/lib/openssh/sftp-server'
const GONE = 'REPLIC_FILE_GONE'
const AS_EVER = 'Nothing: writing goes on.'
const REFUSED = `Writes are refused with \`${GONE}\`, as an \`'error'\` event and \`status().fileGone\` say; reading goes on.`

/** Debian's sqlite3; waits for locks, as an operator does who tries again. Resolves with what it prints. */
export async function sqlite3(file, sql) {
  const { stdout } = await run('sqlite3', ['-cmd', '.timeout 20000', file, sql])
  return stdout.trim()
}

/** A sound database as it is put back: nobody has it open. Its path. */
async function backup(file) {
  const path = `${file}.backup`
  await sqlite3(file, `VACUUM INTO '${path}'`)
  return path
}

/** What belongs to a file that is not there any more. */
function removeFormer({ file }) {
  for (const end of ['-wal', '-shm', '-replic']) rmSync(file + end, { force: true })
}

/** A second copy of the package, as two versions in one node_modules; its URL. */
function otherCopy(dir) {
  const copy = join(dir, 'replic-sqlite')
  for (const part of ['package.json', 'lib', 'build/Release/replic_sqlite.node']) {
    const from = fileURLToPath(new URL(`../../${part}`, import.meta.url))
    cpSync(from, join(copy, part), { recursive: true, dereference: true })
  }
  return pathToFileURL(join(copy, 'lib/index.js')).href
}

/** Holds the write lock, and is stopped (SIGSTOP). Gives what ends it. */
async function stoppedLocker(file) {
  const child = spawn('sqlite3', ['-cmd', '.timeout 20000', file])
  child.stdin.write("BEGIN IMMEDIATE; SELECT 'locked';\n")
  await once(child.stdout, 'data')
  child.kill('SIGSTOP')
  const ended = once(child, 'close')
  return () => {
    child.kill('SIGKILL')
    return ended
  }
}

/** Fills a disk with one file. Gives what empties it again. */
function fillUp(dir) {
  const path = join(dir, 'fill')
  const piece = Buffer.alloc(64 * 1024, 'x')
  writeFileSync(path, '')
  try {
    for (;;) writeFileSync(path, piece, { flag: 'a' })
  } catch (error) {
    if (error.code !== 'ENOSPC') throw error
  }
  return () => rmSync(path)
}

/** A command that runs another one after a piece of shell script, which has `names` as $1, $2, ... */
const after = (script, ...names) => [
  'sh',
  '-c',
  `${script}; shift ${names.length}; "$@"`,
  'sh',
  ...names,
]

// ---- places: where the file is, and how the process is started ----

// { file, seen, command, undo }: `seen` is where the test finds what the process has at `file`; `command` goes before
// the process's own.
const PLACES = {
  /** A small disk. */
  disk(dir) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'none', dir])
    const file = join(dir, 'app.db')
    return { file, seen: file, undo: () => execFileSync('umount', ['--lazy', dir]) }
  },

  /** One file of the host's, mounted into the container; what lies beside it does not. */
  container(dir) {
    const [file, seen] = [join(dir, 'app.db'), join(dir, 'host.db')]
    for (const path of [file, seen]) writeFileSync(path, '')
    const mount = after('mount --bind "$1" "$2"', seen, file)
    return { file, seen, command: ['unshare', '--mount', ...mount] }
  },

  /** Files behind an SFTP server, mounted where nobody else sees it. */
  network(dir) {
    for (const name of ['far', 'near']) mkdirSync(join(dir, name))
    const ssh = join(dir, 'ssh')
    writeFileSync(ssh, `#!/bin/sh\nexec ${SFTP}\n`, { mode: 0o755 })
    const [far, near] = [join(dir, 'far'), join(dir, 'near')]
    const script =
      'sshfs -o ssh_command="$1" host:"$2" "$3"; trap \'umount "$near"\' EXIT; near="$3"'
    return {
      file: join(near, 'app.db'),
      seen: join(far, 'app.db'),
      command: ['unshare', '--mount', ...after(script, ssh, far, near)],
    }
  },

  /** A process that may open few files. */
  frugal(dir) {
    const file = join(dir, 'app.db')
    return { file, seen: file, command: after('ulimit -n 64') }
  },
}

function usual(dir) {
  const file = join(dir, 'app.db')
  return { file, seen: file }
}

/** Where a row is played: { file, seen, command, undo() }. */
export function placeOf({ place }, dir) {
  const made = (PLACES[place] ?? usual)(dir)
  return { command: [], undo: () => {}, ...made, dir }
}

/** What of the machine the rows need that is not here; undefined where all is. */
export function obstacle() {
  if (process.platform !== 'linux') return { why: 'these are the commands of Linux' }
  if (process.getuid() !== 0) return { why: 'only root may mount', isFixable: true }
  if (!existsSync('/dev/fuse')) return { why: 'the kernel has no FUSE' }
  const missing = ['sqlite3', 'sshfs'].filter((name) => spawnSync(name, ['--version']).error)
  if (!existsSync(SFTP)) missing.push('openssh-sftp-server')
  if (missing.length > 0) return { why: `install ${missing.join(', ')}`, isFixable: true }
}

/**
 * name, happens: as in the docs, and `remedy`, where there is something to be done. The rest, all of it optional:
 *   place, program  where, and by what, if it is not the usual
 *   does({ file, dir, deed })  the deed. `deed(name, ...)` has the process do it (child/deeds.js). May return what
 *                   ends it
 *   refuses         the code of writes from then on; without: none is refused
 *   heals           when the deed has ended, writing goes on
 *   putBack         after SIGKILL, what the operator does so that the file is in its place
 *   spares: false   what was written before the deed goes with the file
 *   isAlone         nobody else may look at the file
 *   warns, warnsNext  of what is said when the file is opened: by the process, and after it
 */
export const ROWS = [
  {
    name: 'the application reads its own file, `-wal`, `-shm`, `-replic` (`readFileSync`)',
    happens: AS_EVER,
    does: ({ deed }) => deed('readFiles'),
  },
  {
    name: 'another SQLite library in the process opens and closes it',
    happens: AS_EVER,
    program: bunProgram,
    does: ({ deed }) => deed('otherSqlite'),
  },
  {
    name: 'a second copy of the package in the process opens it',
    happens: 'That one gets `REPLIC_LOCKED`: writing goes on.',
    async does({ dir, deed }) {
      const code = await deed('otherCopy', otherCopy(join(dir, 'other')))
      if (code !== 'REPLIC_LOCKED') throw new Error(`the second copy: ${code}`)
    },
  },
  {
    name: 'the application copies the folder (`fs.cpSync`)',
    happens: AS_EVER,
    does: ({ dir, deed }) => deed('copyFolder', join(dir, '..', 'copy')),
  },
  {
    name: '`cp -r` of the folder',
    happens: AS_EVER,
    does: ({ dir }) => run('cp', ['-r', dir, join(dir, '..', 'copy')]),
  },
  {
    name: "Debian's `sqlite3` reads",
    happens: AS_EVER,
    does: ({ file }) => sqlite3(file, 'SELECT count(*) FROM sqlite_schema'),
  },
  {
    name: "Debian's `sqlite3` writes tables of its own",
    happens: AS_EVER,
    does: ({ file }) =>
      sqlite3(file, 'CREATE TABLE IF NOT EXISTS own (x); INSERT INTO own VALUES (1)'),
  },
  {
    name: "Debian's `sqlite3`: `VACUUM`",
    happens: AS_EVER,
    does: ({ file }) => sqlite3(file, 'VACUUM'),
  },
  {
    name: 'a backup is moved over it (`mv`)',
    happens: REFUSED,
    remedy:
      'End the process, and remove `-wal`, `-shm`, `-replic` of the former file before the next one starts.',
    refuses: GONE,
    spares: false,
    does: async ({ file }) => renameSync(await backup(file), file),
    putBack: removeFormer,
  },
  {
    name: 'it is moved away (`mv`)',
    happens: REFUSED,
    remedy: 'End the process, and move it back: nothing is lost.',
    refuses: GONE,
    does: ({ file }) => renameSync(file, `${file}.away`),
    putBack: ({ file }) => renameSync(`${file}.away`, file),
  },
  {
    name: 'it is removed (`rm`)',
    happens: REFUSED,
    remedy:
      'End the process, remove `-wal`, `-shm`, `-replic`, and start it: it gets everything that another peer has.',
    refuses: GONE,
    spares: false,
    does: ({ file }) => rmSync(file),
    putBack: removeFormer,
  },
  {
    name: '`-wal` and `-shm` are removed',
    happens: REFUSED,
    remedy: 'Start the process again: what it had acknowledged is in the file.',
    refuses: GONE,
    does({ file }) {
      for (const end of ['-wal', '-shm']) rmSync(file + end)
    },
  },
  {
    name: 'the one file that is mounted into a container is made again on the host',
    place: 'container',
    happens: REFUSED,
    remedy:
      'Mount the folder: the container has the file that is gone, whatever the host has at its name.',
    refuses: GONE,
    spares: false,
    warns: 'mount',
    does({ seen }) {
      rmSync(seen)
      writeFileSync(seen, '')
    },
  },
  {
    name: 'a hard link to it is made',
    happens: 'Writing goes on; a warning when it is opened the next time.',
    remedy:
      'Remove the other name: who opens the file by that finds neither its `-wal` nor its locks.',
    warnsNext: 'hard links',
    does: ({ file }) => linkSync(file, `${file}.link`),
  },
  {
    name: 'a symbolic link to it is made, and `sqlite3` writes through that',
    happens: AS_EVER,
    async does({ file }) {
      symlinkSync(file, `${file}.link`)
      await sqlite3(`${file}.link`, 'CREATE TABLE IF NOT EXISTS own (x)')
    },
  },
  {
    name: 'it lies on a network file system (SSHFS)',
    place: 'network',
    happens:
      'A warning, when it is opened. Writing goes on as long as no other machine opens the file.',
    remedy: 'Use a local disk, and let replication carry the data.',
    isAlone: true,
    warns: 'network file system',
    does: () => {},
  },
  {
    name: 'the disk is full',
    place: 'disk',
    happens: 'Writes are refused with `SQLITE_FULL` until there is room; reading goes on.',
    refuses: 'SQLITE_FULL',
    heals: true,
    does: ({ dir }) => fillUp(dir),
  },
  {
    name: 'the process has used up its file descriptors (`ulimit -n`)',
    place: 'frugal',
    happens: AS_EVER,
    async does({ deed }) {
      const code = await deed('useUpDescriptors')
      if (code !== 'EMFILE') throw new Error(`no more files: ${code}`)
    },
  },
  {
    name: 'another program has the write lock, and is stopped (SIGSTOP)',
    happens:
      'Writes are refused with `SQLITE_BUSY` after 5 s, until it ends or goes on; reading goes on.',
    refuses: 'SQLITE_BUSY',
    heals: true,
    does: ({ file }) => stoppedLocker(file),
  },
]

/** Removes what a deed has left beside the file. */
export function clearUp({ file, dir }) {
  for (const path of [
    `${file}.link`,
    `${file}.backup`,
    join(dir, 'other'),
    join(dir, '..', 'copy'),
  ]) {
    rmSync(path, { recursive: true, force: true })
  }
}

/** The table of docs/reliability.md. */
export function tableOfRows() {
  const lines = ROWS.map(({ name, happens, remedy = '' }) => `| ${name} | ${happens} | ${remedy} |`)
  return ['| what is done | what happens | what to do |', '| --- | --- | --- |', ...lines].join(
    '\n',
  )
}
