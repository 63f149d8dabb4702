// Where a database file must not lie: SQLite's WAL needs shared memory and locks that hold, and a file system that
// other machines serve has neither for sure. It works for a while, and then a commit is lost; so it is said at once.

import { readFileSync, statfsSync, statSync } from 'node:fs'

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

// A line of it: "66 44 0:39 / /mnt rw,relatime - fuse.sshfs host:/dir rw". FUSE has devices of major number 0.
function fuseName(path) {
  const { dev } = statSync(path)
  const minor = (dev & 0xff) | ((dev >>> 12) & ~0xff)
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const mount = mounts.find((line) => line.split(' ')[2] === `0:${minor}`)
  return NETWORK_FUSE.get(/ - (\S+)/.exec(mount)?.[1])
}

/** What is wrong with the place of a file, as a sentence; undefined if nothing is, or it cannot be known. */
export function placeWarning(path, statfs = statfsSync) {
  try {
    const type = Number(statfs(path).type)
    const name = type === FUSE ? fuseName(path) : NETWORK.get(type)
    if (!name) return undefined
    return (
      `${path} lies on a network file system (${name}), where SQLite's locks and shared memory cannot be relied on: ` +
      'use a local disk, and let replication carry the data'
    )
  } catch {
    return undefined
  }
}
