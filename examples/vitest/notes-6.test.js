import { ReplicError } from 'replic-sqlite'
import { connect, listen } from 'replic-sqlite/tcp'
import { expect, it } from 'vitest'
import { openNotes } from './replicas.js'

it('writes and reads', async () => {
  const db = await openNotes()
  await db.upsert('note', [{ id: 1, text: 'one' }, { id: 2 }])
  expect(await db.all('SELECT id, text FROM note ORDER BY id')).toEqual([
    { id: 1, text: 'one' },
    { id: 2, text: null },
  ])
})

it('replicates between two replicas', async () => {
  const [a, b] = [await openNotes(), await openNotes()]
  const listener = await listen(a)
  connect(b, { port: listener.address().port })
  await a.waitFor(await b.upsert('note', { id: 1, text: 'from b' }), 30_000)
  expect(await a.get('SELECT text FROM note')).toEqual({ text: 'from b' })
})

it('refuses with its own errors', async () => {
  const db = await openNotes()
  await expect(db.upsert('nota', { id: 1 })).rejects.toThrow(ReplicError)
  await expect(db.upsert('nota', { id: 1 })).rejects.toMatchObject({ code: 'REPLIC_UNKNOWN_TABLE' })
})

it('may leave a replica open', async () => {
  const db = await openNotes()
  await db.upsert('note', { id: 3 })
  expect(db.status().state).toBe('open')
})
