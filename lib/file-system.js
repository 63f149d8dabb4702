// Where a database file must not lie: SQLite's WAL needs shared memory and locks that hold, and a file system that
// other machines serve has neither for sure. And what belongs to the file lies beside it, by its name. It works for a
// while, and then a commit is lost; so it is said at once.

import { readFileSync, realpathSync, statfsSync, statSync } from 'node:fs'

const FUSE = 0x65735546 // any of them: which one, only the list of mounts tells
const NETWORK = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB'],
  [0x5346414f, 'AFS'],
  [0x01021997, '9P'],
  [0x00c36400, 'Ceph'],
])
const NETWORK_FUSE = new Map([
  ['fuse.sshfs', 'SSHFS'],
  ['fuse.glusterfs', 'GlusterFS'],
  ['fuse.ceph-fuse', 'Ceph'],
  ['fuse.s3fs', 's3fs'],
  ['fuse.gcsfuse', 'gcsfuse'],
  ['fuse.rclone', 'rclone'],
  ['fuse.juicefs', 'JuiceFS'],
])

// Lines of the list of mounts, split: "66 44 0:39 / /mnt rw,relatime - fuse.sshfs host:/dir rw".
function mounts() {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  return lines.map((line) => ({ device: line.split(' ')[2], place: line.split(' ')[4], line }))
}

// FUSE has devices of major number 0.
function fuseName(path) {
  const { dev } = statSync(path)
  const minor = (dev & 0xff) | ((dev >>> 12) & ~0xff)
  const mount = mounts().find(({ device }) => device === `0:${minor}`)
  return NETWORK_FUSE.get(/ - (\S+)/.exec(mount?.line)?.[1])
}

function networkWarning(path, statfs) {
  const type = Number(statfs(path).type)
  const name = type === FUSE ? fuseName(path) : NETWORK.get(type)
  if (!name) return undefined
  return (
    `${path} lies on a network file system (${name}), where SQLite's locks and shared memory cannot be relied on: ` +
    'use a local disk, and let replication carry the data'
  )
}

function linkWarning(path) {
  const { nlink } = statSync(path)
  if (nlink < 2) return undefined
  return (
    `${path} has ${nlink} names (hard links): by another one a program finds neither its -wal nor its locks, and may ` +
    'damage it. Remove the other names; a copy is made by backup()'
  )
}

// A mount of one file only, as containers have it.
function mountWarning(path) {
  const place = realpathSync(path).replace(/[ \t\n\\]/g, octal)
  if (!mounts().some((mount) => mount.place === place)) return undefined
  return (
    `${path} is a file that is mounted by itself: its -wal and -replic lie elsewhere and do not outlive the container, ` +
    'and where the file is replaced outside, this process does not see it. Mount the folder instead'
  )
}

const octal = (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`

/** What is wrong with the place of a file, as a sentence; undefined if nothing is, or it cannot be known. */
export function placeWarning(path, statfs = statfsSync) {
  for (const find of [networkWarning, mountWarning, linkWarning]) {
    try {
      const warning = find(path, statfs)
      if (warning) return warning
    } catch {
      // another system than Linux has no list of mounts; what cannot be opened at all, open says
    }
  }
}
