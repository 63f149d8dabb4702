// Three processes, each linked to the others and writing without end, are upgraded one after another,
// and downgraded, and upgraded again. No write is refused, none is lost, and at the end all are equal.

import { join } from 'node:path'
import { execPath } from 'node:process'
import { expect, it } from 'vitest'
import { childPath, startProcess, tempDir } from './helpers.js'

const PEERS = [1, 2, 3]

async function startPeer(peerId) {
  const path = join(tempDir(), `${peerId}.db`)
  const child = startProcess(execPath, [childPath('roller.js'), path, `${peerId}`])
  const port = await child.line()
  const ask = async (line) => {
    child.send(line)
    const answer = await child.line()
    if (answer === null) expect.fail(`${line}: ${(await child.ended).stderr}`)
    return answer
  }
  return { port, ask }
}

it('a rolling upgrade, downgrade and upgrade under writes', async () => {
  const peers = await Promise.all(PEERS.map(startPeer))
  const all = (line) => Promise.all(peers.map(({ ask }) => ask(line)))
  for (const [i, { ask }] of peers.entries()) {
    for (const { port } of peers.slice(0, i)) await ask(`dial ${port}`)
  }
  await all('go')
  for (const version of [2, 1, 2]) {
    for (const { ask } of peers) await ask(`migrate ${version}`)
  }
  const ends = (await all('stop')).map((answer) => answer.split(' '))
  for (const [, written, refused] of ends) {
    expect(Number(written)).toBeGreaterThan(150)
    expect(refused).toBe('0')
  }
  for (const [token] of ends) await all(`wait ${token}`)
  const [first, ...others] = (await all('tables')).map((answer) => JSON.parse(answer))
  for (const other of others) expect(other).toEqual(first)
  expect(first.missing).toBe(0)
  expect(first.n).toBe(ends.reduce((sum, [, written]) => sum + Number(written), 0))
})
