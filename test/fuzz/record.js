// node test/fuzz/record.js > test/fuzz/session.txt: the frames of one link up to 2,000 bytes, in hexadecimal, a line each: '>' from who
// dialed, '<' from the other side. They say hello with a secret, encrypt nothing, exchange rows, compare their tables, and part.

import { EventEmitter } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Replica } from '../../lib/index.js'
import { SECRET } from './inputs.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT, size REAL, data BLOB) STRICT;
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, _nulls TEXT, id INTEGER NOT NULL, text TEXT, size REAL, data BLOB) STRICT;`

const folder = mkdtempSync(join(tmpdir(), 'replic-'))
const open = async (peerId) => {
  const db = await Replica.open(join(folder, `${peerId}.db`), {
    peerId,
    secret: SECRET,
    encryption: false,
  })
  await db.migrate([{ up: DDL }])
  return db
}
const [a, b] = [await open(11), await open(12)]
const rows = (from) =>
  Array.from({ length: 5 }, (_, i) => ({
    id: from + i,
    text: i ? `row ${i}` : null,
    size: i / 4,
    data: Buffer.alloc(i * 9, i),
  }))
await a.upsert('note', rows(0))
await b.upsert('note', rows(3))

const [near, far] = [new EventEmitter(), new EventEmitter()]
const carry = (mark, to) => (frame) => {
  if (frame.length < 2000) console.log(`${mark} ${Buffer.from(frame).toString('hex')}`)
  queueMicrotask(() => to.emit('message', frame))
}
const close = () => {
  for (const end of [near, far]) queueMicrotask(() => end.emit('close'))
}
Object.assign(near, { send: carry('>', far), close })
Object.assign(far, { send: carry('<', near), close })
a.addRemotePeer(12, near)
b.addRemotePeer(11, far)
await Promise.all([a.waitFor('12.1', 60_000), b.waitFor('11.1', 60_000)])
await a.verify(12)
await b.run("UPDATE note SET text = 'changed' WHERE id = 4", [], { unsafe: true })
await a.verify(12)
a.closeRemotePeer(12)
await Promise.all([a.close(), b.close()])
rmSync(folder, { recursive: true })
