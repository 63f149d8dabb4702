// status() and metrics(): that the figures are right, that metrics() has all of them, and that a real
// parser of OpenMetrics reads it.

import { execFileSync } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { METRICS_CONTENT_TYPE } from '../lib/index.js'
import { connect } from '../lib/transport/tcp.js'
import { converged, eventOf, FAST, link, linkHeld, openReplica, tempDir, until } from './helpers.js'

const many = (n, text = 'x') => Array.from({ length: n }, (_, id) => ({ id, text }))
const isState = (state) => (event) => event.state === state

// The strict parser of Prometheus' own client for Python (Debian: python3-prometheus-client). It
// prints what it has read.
const PARSER = `
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
print(json.dumps([{'name': f.name, 'type': f.type, 'unit': f.unit, 'help': f.documentation,
  'samples': [[s.name, s.labels, s.value] for s in f.samples]} for f in parse(sys.stdin.read())]))`
const python = ['/usr/bin/python3', 'python3'].find((program) => {
  try {
    execFileSync(program, ['-c', 'import prometheus_client.openmetrics.parser'], {
      stdio: 'ignore',
    })
    return true
  } catch {
    return false
  }
})

/** The families by name; throws what the parser says against the text. */
function parse(text) {
  const options = { input: text, encoding: 'utf8', stdio: 'pipe' }
  const families = JSON.parse(execFileSync(python, ['-c', PARSER], options))
  return new Map(families.map((family) => [family.name, family]))
}

describe('status()', () => {
  it('tells what has been counted, and how large the file is', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ path, peerId: 11 })
    const before = Date.now()
    for (let i = 0; i < 10; i++) await db.upsert('note', many(10, `${i}`))
    await db.compact({ maxPatchRetentionMs: 0 })
    const status = db.status()
    expect(status).toMatchObject({
      logRows: 10,
      fileBytes: statSync(path).size,
      walBytes: statSync(`${path}-wal`).size,
      counters: { groupsWritten: 10, patchesWritten: 100, patchesPruned: 90, patchesApplied: 0 },
    })
    expect(status.fileBytes).toBeGreaterThan(0)
    expect(status.walBytes).toBeGreaterThan(0)
    expect(status.clock).toBeGreaterThanOrEqual(before)
    expect(status.clock).toBeLessThanOrEqual(Date.now())
    const { patched } = await db.get('SELECT max(_patchedAt) AS patched FROM note_patches')
    expect(status.clock).toBe(patched)
  })

  it('tells how large transactions are, and how long they take', async () => {
    const db = await openReplica({ maxPatchRetentionMs: Infinity }) // retention makes calls, too
    const { batches: none } = db.status()
    for (let i = 0; i < 5; i++) await db.upsert('note', { id: i })
    const { batches: single } = db.status()
    expect(single.calls.count - none.calls.count).toBe(5)
    expect(single.calls.sum - none.calls.sum).toBe(5)
    expect(single.calls.max).toBe(1)
    await db.get('SELECT 1')
    expect(db.status().batches).toEqual(single)

    await Promise.all(many(5_000).map((row) => db.upsert('note', row)))
    const { calls, seconds } = db.status().batches
    expect(calls.sum - single.calls.sum).toBe(5_000)
    expect(calls.count - single.calls.count).toBeLessThan(100)
    expect(calls.max).toBeGreaterThan(100)
    expect(calls.buckets.map(({ le }) => le)).toEqual([1, 10, 100, 1000, 10_000])
    expect(calls.buckets.at(0).count).toBeLessThan(calls.count)
    expect(calls.buckets.at(-1).count).toBe(calls.count)
    expect(seconds.count).toBe(calls.count)
    expect(seconds.sum).toBeGreaterThan(0)
    expect(seconds.max).toBeLessThanOrEqual(seconds.sum)
    const counts = seconds.buckets.map(({ count }) => count)
    expect(counts).toEqual([...counts].sort((a, b) => a - b))
  })

  it('tells of each link how far the other side is', async () => {
    const [a, b] = [await openReplica({ peerId: 11, heartbeatMs: 5 }), await openReplica()]
    const connection = await linkHeld(a, b)
    const figures = () => a.status().links[0]
    await until(() => figures().lag === 0 && figures().bytesOut > 0)
    expect(figures()).toMatchObject({ behind: 0, lagMs: 0, unackedBytes: 0, retransmitted: 0 })
    expect(figures()).toMatchObject({ jump: null, staged: 0, held: null, lastError: null })
    expect(Math.abs(figures().skewMs)).toBeLessThan(60_000)

    connection.hold()
    await a.upsert('note', many(30))
    await until(() => figures().lag === 30 && figures().lagMs > 0)
    expect(figures().unackedBytes).toBeGreaterThan(30)
    connection.release()
    await until(() => figures().lag === 0 && figures().lagMs === 0)
    await converged(a, b)
    expect(figures().unackedBytes).toBe(0)
  })

  it('goes on telling after close()', async () => {
    const db = await openReplica()
    await db.upsert('note', many(10))
    await db.close()
    expect(db.status()).toMatchObject({ state: 'closed', logRows: 10, links: [] })
    expect(db.status().counters).toMatchObject({ patchesWritten: 10 })
  })
})

if (!python) {
  const text = 'metrics() needs python3-prometheus-client (Debian) to be tested'
  if (process.env.CI) throw new Error(text)
  console.warn(`NOT TESTED: ${text}`)
}

describe.skipIf(!python)('metrics()', () => {
  it('the parser is strict', () => {
    const text = '# TYPE a counter\n# HELP a x\na_total 1\n# EOF\n'
    expect(parse(text).get('a').samples).toEqual([['a_total', {}, 1]])
    for (const wrong of [text.replace('# EOF\n', ''), text.replace('_total', ''), `${text}a 1\n`]) {
      expect(() => parse(wrong)).toThrow()
    }
  })

  it('is well-formed, and has every number of status()', async () => {
    const a = await openReplica({ peerId: 11, heartbeatMs: 20 })
    const b = await openReplica({ peerId: 12, heartbeatMs: 20 })
    await link(b, a)
    await Promise.all([a.upsert('note', many(100)), b.upsert('note', many(10))])
    await converged(a, b)
    const { status, families } = both(a)
    const value = (name, labels = {}) => sampleOf(families, name, labels)

    expect(value('replic_replica_info', { peer: '11', path: status.path })).toBe(1)
    expect(value('replic_open')).toBe(1)
    expect(value('replic_clock_seconds')).toBeCloseTo(status.clock / 1000, 3)
    expect(value('replic_applied_sequence', { origin: '11' })).toBe(100)
    expect(value('replic_applied_sequence', { origin: '12' })).toBe(10)
    expect(value('replic_tables')).toBe(1)
    for (const name of ['logRows', 'fileBytes', 'walBytes']) {
      expect(value(`replic_${snakeCase(name)}`)).toBe(status[name])
    }
    expect(value('replic_queue_calls')).toBe(status.queue.calls)
    expect(value('replic_queue_bytes')).toBe(status.queue.bytes)
    for (const [name, number] of Object.entries(status.counters)) {
      expect(families.get(`replic_${snakeCase(name)}`).type).toBe('counter')
      expect(value(`replic_${snakeCase(name)}_total`)).toBe(number)
    }
    for (const [name, { count, sum, max, buckets }] of Object.entries(status.batches)) {
      const family = { calls: 'replic_batch_calls', seconds: 'replic_batch_seconds' }[name]
      expect(families.get(family).type).toBe('histogram')
      expect(value(`${family}_count`)).toBe(count)
      expect(value(`${family}_sum`)).toBe(sum)
      expect(value(`replic_batch_max_${name}`)).toBe(max)
      expect(value(`${family}_bucket`, { le: '+Inf' })).toBe(count)
      for (const { le, count: n } of buckets) {
        const bound = Number.isInteger(le) ? `${le}.0` : `${le}`
        expect(value(`${family}_bucket`, { le: bound })).toBe(n)
      }
    }
  })

  it('has every number of each link', async () => {
    const a = await openReplica({ peerId: 11, heartbeatMs: 20 })
    const [b, c] = [await openReplica({ peerId: 12 }), await openReplica({ peerId: 13 })]
    await link(a, b)
    const connection = await linkHeld(a, c)
    connection.hold()
    await a.upsert('note', many(10))
    await converged(a, b)
    a.addRemotePeer(null, new Silent()) // two who have not said who they are
    a.addRemotePeer(null, new Silent())
    const waiting = eventOf(a, 'link', isState('down'))
    connect(a, { port: 1, ...FAST, retryMinMs: 60_000, retryMaxMs: 60_000 })
    await waiting
    const hasFigures = ({ bytesIn }) => bytesIn !== undefined
    await until(() => a.status().links.filter(hasFigures).length === 4)
    await until(() => a.status().links[1].lagMs > 0)
    const { status, families } = both(a)
    const links = status.links.filter(hasFigures)
    expect(links.map(({ peerId }) => peerId)).toEqual([12, 13, null, null])

    expect(links[1]).toMatchObject({ lag: 10, unackedBytes: expect.any(Number) })

    const FIGURES = {
      lag: ['replic_link_lag_patches', 1],
      lagMs: ['replic_link_lag_seconds', 1000],
      behind: ['replic_link_behind_patches', 1],
      unackedBytes: ['replic_link_unacknowledged_bytes', 1],
      skewMs: ['replic_link_clock_skew_seconds', 1000],
      bytesIn: ['replic_link_received_bytes_total', 1],
      bytesOut: ['replic_link_sent_bytes_total', 1],
      framesIn: ['replic_link_received_frames_total', 1],
      framesOut: ['replic_link_sent_frames_total', 1],
      retransmitted: ['replic_link_retransmitted_patches_total', 1],
      staged: ['replic_link_staged_patches', 1],
    }
    for (const each of links) {
      const labels = { link: `${each.link}` }
      if (each.peerId) labels.peer = `${each.peerId}`
      const value = (name, more) => sampleOf(families, name, { ...labels, ...more })
      for (const [figure, number] of Object.entries(each)) {
        if (typeof number !== 'number' || figure === 'link' || figure === 'peerId') continue
        const [name, divisor] = FIGURES[figure]
        expect(value(name), name).toBeCloseTo(number / divisor, 6)
      }
      expect(value('replic_link_ready')).toBe(each.peerId ? 1 : 0)
      expect(value('replic_link_held')).toBe(0)
      expect(value('replic_link_jumping', { direction: 'sending' })).toBe(0)
      const { transport, address } = each
      const info = address === null ? { transport } : { transport, address }
      expect(value('replic_link_info', info)).toBe(1)
    }
    const count = (state) => sampleOf(families, 'replic_links', { state })
    const states = ['connecting', 'opening', 'ready', 'standby', 'waiting', 'closed']
    expect(states.map(count)).toEqual([0, 2, 2, 0, 1, 0])
  })

  it('has units, and help that says something', async () => {
    const { families } = both(await openReplica())
    expect(families.size).toBeGreaterThan(40)
    for (const { name, unit, help } of families.values()) {
      expect(help, name).toMatch(/^\S.{5,}\.$/)
      expect(unit, name).toBe(/_(seconds|bytes)$/.exec(name)?.[1] ?? '')
    }
  })

  it('escapes labels', async () => {
    const folder = join(tempDir(), 'a "b" \\n\nc')
    mkdirSync(folder)
    const path = join(folder, 'd\\.db')
    const db = await openReplica({ path })
    const { families } = both(db)
    expect(families.get('replic_replica').samples[0][1].path).toBe(path)
  })

  it('of a closed replica', async () => {
    const db = await openReplica()
    await db.close()
    const { families } = both(db)
    expect(sampleOf(families, 'replic_open')).toBe(0)
  })

  function both(db) {
    const [status, text] = [db.status(), db.metrics()]
    return { status, families: parse(text) }
  }
})

it('METRICS_CONTENT_TYPE is that of OpenMetrics 1.0', () => {
  expect(METRICS_CONTENT_TYPE).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8')
})

it('the types name the counters and the figures of a link', async () => {
  const types = readFileSync(new URL('../types/index.d.ts', import.meta.url), 'utf8')
  const names = (type) => {
    const [, body] = new RegExp(`interface ${type} \\{(.*?)^\\}`, 'ms').exec(types)
    return [...body.matchAll(/^ {2}(\w+)\??: /gm)].map((match) => match[1])
  }
  const [a, b] = [await openReplica(), await openReplica()]
  await link(a, b)
  const status = a.status()
  expect(names('Status').sort()).toEqual(Object.keys(status).sort())
  expect(names('Counters').sort()).toEqual(Object.keys(status.counters).sort())
  expect(names('LinkStatus').sort()).toEqual(Object.keys(status.links[0]).sort())
  expect(names('Histogram').sort()).toEqual(Object.keys(status.batches.calls).sort())
})

class Silent extends EventEmitter {
  send() {}
  close() {
    queueMicrotask(() => this.emit('close'))
  }
}

const snakeCase = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** The value of the one sample with that name and exactly these labels. */
function sampleOf(families, name, labels = {}) {
  const found = [...families.values()]
    .flatMap(({ samples }) => samples)
    .filter((sample) => sample[0] === name && same(sample[1], labels))
  expect(found, `${name} ${JSON.stringify(labels)}`).toHaveLength(1)
  return found[0][2]
}

const same = (a, b) => {
  const names = Object.keys(a)
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name])
}
