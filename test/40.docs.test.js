// The documents say what the code does: examples run, tables name what there is, links lead somewhere.

import { EventEmitter, once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Replica } from '../lib/index.js'
import { eventOf, openReplica, runProcess, SEED_NULLS, tempDir } from './helpers.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const text = (path) => readFileSync(join(ROOT, path), 'utf8')
const README = text('README.md')
const PROTOCOL = text('docs/protocol.md')
const DOCUMENTS = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'examples/README.md',
  ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
]

/** The contents of the fenced blocks in that language. */
const blocks = (markdown, language) =>
  [...markdown.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(
    ([, body]) => body,
  )

/** The rows of all tables below a heading, up to the next heading of any level: lists of cells. */
function tableRows(markdown, heading) {
  const section = markdown.split(`\n${heading}\n`)[1]?.split(/^#+ /m)[0]
  expect(section, heading).toBeDefined()
  const lines = section.split('\n').filter((line) => /^\| [^-]/.test(line))
  return lines.map((line) =>
    line
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim()),
  )
}

/** What stands in backquotes. */
const quoted = (cell) => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1])

describe('README', () => {
  it('has a first example that prints what it says', async () => {
    const dir = tempDir()
    mkdirSync(join(dir, 'node_modules'))
    symlinkSync(ROOT, join(dir, 'node_modules', 'replic-sqlite'), 'junction')
    writeFileSync(join(dir, 'first.mjs'), blocks(README, 'js')[0])
    const printed = blocks(README, 'text')[0]
    for (const _ of ['on new files', 'again']) {
      expect(await runProcess(execPath, ['first.mjs'], { cwd: dir })).toEqual({
        code: 0,
        signal: null,
        stdout: printed,
        stderr: '',
      })
    }
  })

  it('has two commands, which package.json knows', () => {
    const commands = blocks(README, 'sh')[0].match(/npm (run )?[a-z]+/g)
    expect(commands).toEqual(['npm install', 'npm run demo', 'npm test'])
    expect(JSON.parse(text('package.json')).scripts).toMatchObject({
      prepare: expect.any(String),
      demo: expect.any(String),
      test: expect.any(String),
    })
  })

  it('shows DDL that replicates', async () => {
    const [ddl] = blocks(README, 'sql')
    const db = await openReplica({ ddl })
    expect(db.status().tables).toEqual(['myTable'])
    await db.upsert('myTable', { id: 1, tenantId: 1, name: null })
  })

  it('names every method in its table, and no other', () => {
    const named = tableRows(README, '## API').flatMap(([cell]) =>
      [...cell.matchAll(/db\.(\w+)\(/g)].map((match) => match[1]),
    )
    const methods = Object.getOwnPropertyNames(Replica.prototype).filter(
      (name) => name !== 'constructor',
    )
    expect(named.sort()).toEqual(methods.sort())
  })

  it('has the ratios of bench/README.md', () => {
    const lines = text('bench/README.md').split('\n')
    // A benchmark is a line with its title, and one for each side that it is compared with.
    const ratio = (title, against) => {
      const first = lines.findIndex((line) => line.startsWith(title))
      const side = lines.slice(first + 1).find((line) => line.trim().startsWith(against))
      expect(first, title).toBeGreaterThan(0)
      return side
        .slice(side.indexOf(against) + against.length)
        .trim()
        .split(/ +/)[1]
    }
    const [, ...rows] = tableRows(README, '## Figures')
    expect(rows.length).toBeGreaterThan(3)
    for (const [title, against, normal, full] of rows) {
      const always = full === '' // a query: it does not sync
      expect(normal).toBe(ratio(always ? `${title} ` : `${title}, NORMAL `, against))
      if (!always) expect(full).toBe(ratio(`${title}, FULL `, against))
    }
  })

  it('names every event', () => {
    const [, cell] = tableRows(README, '## API').find(([name]) => name.includes('db.on('))
    const interfaceText = /interface Events \{(.*?)^\}/ms.exec(text('types/index.d.ts'))[1]
    expect(quoted(cell).sort()).toEqual(
      [...interfaceText.matchAll(/^ {2}(\w+): \[/gm)].map((match) => match[1]).sort(),
    )
  })

  it('shows how to read your own write, in a line', async () => {
    const [, line] = blocks(README, 'js')
    const db = await openReplica()
    const app = express()
    new Function('app', 'db', line)(app, db)
    app.post('/', async (_req, res) => res.json(await db.upsert('note', { id: 1 })))
    const server = app.listen(0, '127.0.0.1')
    onTestFinished(() => server.close())
    await once(server, 'listening')
    const url = `http://127.0.0.1:${server.address().port}`
    const answer = await fetch(url, { method: 'POST' })
    expect(answer.headers.get('x-replic-token')).toBe(await answer.json())
  })

  it('has no other program that nobody runs', () => {
    expect(blocks(README, 'js')).toHaveLength(2)
    expect(blocks(README, 'sh')).toHaveLength(1)
  })
})

describe('docs/errors.md', () => {
  const table = [...text('src/core/errors.h').matchAll(/X\(REPLIC_\w+, "(\w+)", *"(.*)"\)/g)]
  const sections = text('docs/errors.md').split(/^### /m).slice(1)

  it('has one section for each code', () => {
    expect(table.length).toBeGreaterThan(20)
    const named = sections.map((section) => section.split('\n')[0])
    expect(named).toEqual(table.map(([, code]) => code))
  })

  it.each(table.map(([, code, meaning]) => [code, meaning]))('%s: %s', (code, meaning) => {
    const section = sections.find((body) => body.startsWith(`${code}\n`))
    const sentence = `${meaning[0].toUpperCase()}${meaning.slice(1)}.`
    expect(section.split('\n')[2]).toBe(sentence)
    expect(section.match(/^- \*\*(When|Remedy)\.\*\* /gm)).toEqual([
      '- **When.** ',
      '- **Remedy.** ',
    ])
  })
})

describe('docs/metrics.md', () => {
  it('shows how they are served', async () => {
    const script = blocks(text('docs/metrics.md'), 'js')[0]
    const dir = tempDir()
    mkdirSync(join(dir, 'node_modules'))
    symlinkSync(ROOT, join(dir, 'node_modules', 'replic-sqlite'), 'junction')
    const program = `import { Replica } from 'replic-sqlite'
      ${script.replace('createServer((', 'const server = createServer((').replace('9464', '0')}
      const db = await Replica.open('a.db')
      if (!server.listening) await new Promise((resolve) => server.on('listening', resolve))
      const answer = await fetch('http://127.0.0.1:' + server.address().port)
      console.log(answer.headers.get('content-type'), (await answer.text()).split('\\n')[0])
      server.close()
      server.closeAllConnections()`
    writeFileSync(join(dir, 'serve.mjs'), program)
    expect(await runProcess(execPath, ['serve.mjs'], { cwd: dir })).toMatchObject({
      stderr: '',
      stdout:
        'application/openmetrics-text; version=1.0.0; charset=utf-8 # TYPE replic_replica info\n',
    })
  })

  it('names every metric with its type, and no other', async () => {
    const headings = ['## The replica', '## Links']
    const rows = headings.flatMap((heading) => tableRows(text('docs/metrics.md'), heading).slice(1))
    const named = rows.flatMap(([cell, type]) => quoted(cell).map((name) => [name, type]))
    const SUFFIX = { counter: '_total', info: '_info', gauge: '', histogram: '' }
    const families = [...(await openReplica()).metrics().matchAll(/^# TYPE (\w+) (\w+)$/gm)]
    const there = families.map(([, name, type]) => [name + SUFFIX[type], type])
    expect(named.sort()).toEqual(there.sort())
    const alarms = tableRows(text('docs/metrics.md'), '## Worth an alarm').slice(1)
    const names = new Set(there.map(([name]) => name))
    for (const [cell] of alarms) expect(names).toContain(quoted(cell)[0].replace(/\{.*/, ''))
  })
})

describe('docs/architecture.md', () => {
  it('names every file of the core', () => {
    const rows = tableRows(text('docs/architecture.md'), '### The core, file by file')
    const named = rows.flatMap(([cell]) => quoted(cell))
    const files = readdirSync(join(ROOT, 'src/core'), { recursive: true })
    expect(named.sort()).toEqual(files.filter((path) => /\.[ch]$/.test(path)).sort())
  })

  it('names every file of the binding and of lib/', () => {
    const rows = tableRows(text('docs/architecture.md'), '### The binding and lib')
    const named = rows
      .flatMap(([cell]) => quoted(cell))
      .filter((name) => !name.endsWith('/')) // a folder as a whole
      .map((name) => name.replace(/^.*\//, ''))
    const stems = readdirSync(join(ROOT, 'src/napi')).map((name) => name.replace(/\..*/, '.*'))
    const inside = /^(cli|transport\/udp)\// // one row for the folder
    const scripts = readdirSync(join(ROOT, 'lib'), { recursive: true })
      .filter((name) => name.endsWith('.js') && !inside.test(name))
      .map((name) => name.replace(/^.*\//, ''))
    const ignored = ['addon.*', 'job.*', 'object.*', 'index.js'] // glue
    expect([...named, ...ignored].sort()).toEqual([...new Set(stems), ...scripts].sort())
  })
})

describe('docs/protocol.md', () => {
  const frames = tableRows(PROTOCOL, '### Frames').slice(1)
  const examples = new Map(
    [...PROTOCOL.matchAll(/^([A-Z]+): [^\n]*\n\n```hex\n(.*?)^```/gms)].map(([, name, block]) => [
      name,
      Buffer.from(block.replace(/#.*$/gm, '').replace(/\s/g, ''), 'hex'),
    ]),
  )

  it('shows the scenes that the tests of the core hear', () => {
    const source = text('test/core/test_scenes.c')
    const heard = [...source.matchAll(/^static void (\w+)\(void\) \{\n(.*?)^\}/gms)].flatMap(
      ([, name, body]) => {
        const [, lines] = /scene_is\(s,\s*((?:"[^\n]*"\s*)*)\)/.exec(body) ?? []
        const said = lines && [...lines.matchAll(/"(.*)\\n"/g)].map(([, line]) => line)
        return said ? [[name, said]] : []
      },
    )
    const [, section] = /^## Scenes\n(.*?)^## /ms.exec(PROTOCOL)
    const shown = [...section.matchAll(/^### ([^\n]*)$.*?^```text\n(.*?)^```/gms)].map(
      ([, title, block]) => [
        `${title[0].toLowerCase()}${title.slice(1).replaceAll(' ', '_')}`,
        block.trimEnd().split('\n'),
      ],
    )
    expect(shown).toHaveLength(10)
    expect(shown).toEqual(heard)
  })

  it('numbers the frames as wire.h does', () => {
    const [, names] = /enum \{\s*(FRAME_HELLO = 1,.*?)FRAME_LAST/s.exec(
      text('src/core/links/wire.h'),
    )
    const numbered = names.match(/FRAME_\w+/g).map((name, i) => [`${i + 1}`, name.slice(6)])
    expect(frames.map(([type, name]) => [type, name])).toEqual(numbered)
  })

  it('has the version of replic.h', () => {
    const [, version] = /#define REPLIC_PROTOCOL_VERSION (\d+)/.exec(text('src/core/replic.h'))
    expect(PROTOCOL).toMatch(new RegExp(`^# The protocol, version ${version}\n`))
    for (const example of examples.values()) expect(example[0]).toBe(Number(version))
  })

  it('has the limits of the code', () => {
    const source = readdirSync(join(ROOT, 'src/core'), { recursive: true })
      .filter((path) => /\.[ch]$/.test(path))
      .map((path) => text(`src/core/${path}`))
      .join('')
    const constant = (name) => {
      const [, a, b = '0'] = new RegExp(
        `#define ${name}\\s[\\s\\\\]*\\(?(\\d+)(?: << (\\d+))?`,
      ).exec(source)
      return Number(a) * 2 ** Number(b)
    }
    const number = (name) => constant(name).toLocaleString('en-US')
    const mib = (name) => `${constant(name) / 1024 ** 2} MiB`
    const words = ['none', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    const prose = PROTOCOL.replace(/\s+/g, ' ')
    const limits = tableRows(PROTOCOL, '## Limits').slice(1)
    const [patches, control, origins, definitions, fields, early, group, epochs] = limits.map(
      ([, limit]) => limit,
    )
    expect(patches).toContain(`maxFrameBytes\` + ${mib('FRAME_SLACK')}`)
    expect(control).toBe(mib('CONTROL_MAX'))
    expect(origins).toContain(number('ORIGINS_MAX'))
    expect(definitions).toContain(`${number('TABLES_MAX')}, and ${mib('SCHEMA_MAX')},`)
    expect(fields).toContain(`${number('FIELDS_MAX')},`)
    expect(early).toContain(`${number('EARLY_MAX')} `)
    expect(group).toContain(`maxFrameBytes\` + ${mib('FRAME_SLACK')}`)
    expect(epochs).toBe(number('EPOCHS_MAX'))
    expect(prose).toContain(`| ${number('TROUBLES_MAX')} in a heartbeat`)
    expect(prose).toContain(`${mib('FRAME_SLACK')} are there`)
    expect(prose).toContain(`${number('RUN_PATCHES')} patches or ${mib('RUN_BYTES')}`)
    expect(prose).toContain(`${constant('RING_MAX')} of them`)
    expect(prose).toContain(`after ${words[constant('GRACE_HEARTBEATS')]} heartbeats`)
    expect(prose).toContain(`every ${words[constant('HELD_HEARTBEATS')]} heartbeats`)
    expect(README).toContain(`${number('ORIGINS_MAX')} origins`)
  })

  it('has an example of each frame, which does what it says', async () => {
    const numbered = [...examples].map(([name, bytes]) => [`${bytes[1]}`, name])
    const byType = ([a], [b]) => a - b
    expect(numbered.sort(byType)).toEqual(frames.map(([type, name]) => [type, name]))
    const db = await openReplica({ ddl: SEED_NULLS, peerId: 12 })
    await db.upsert('myTable', { id: 3, tenantId: 7, name: 'Grace' })
    const peer = new Peer()
    db.addRemotePeer(11, peer)

    const receive = (name) => peer.emit('message', examples.get(name))
    for (const name of ['HELLO', 'SCHEMA', 'PATCHES']) receive(name)
    await db.waitFor('11.2')
    expect(await db.all('SELECT * FROM myTable WHERE id < 3')).toEqual([
      { id: 1, tenantId: 7, name: 'Ada', deletedAt: null },
      { id: 2, tenantId: 7, name: null, deletedAt: 1_700_000_000_000 },
    ])
    expect(await db.all('SELECT * FROM myTable_patches WHERE id < 3')).toMatchObject([
      { _patchedAt: 1_700_000_000_000, _sequenceId: 1, _peerId: 11, _nulls: null },
      { _patchedAt: 1_700_000_000_000, _sequenceId: 2, _peerId: 11, _nulls: '["name"]' },
    ])

    const synced = eventOf(db, 'synced')
    receive('ACK')
    expect(await synced).toMatchObject({ peerId: 11 })

    const again = peer.next(2)
    receive('NEED')
    expect((await again).subarray(0, 5).toString('hex')).toBe('01020c0001') // origin 12, (0, 1]

    const told = eventOf(db, 'link', ({ state }) => state === 'error')
    receive('ERROR')
    expect(await told).toMatchObject({ code: 'REPLIC_SCHEMA' })
    expect((await told).reason).toContain('later')

    const take = peer.next(9)
    receive('JUMP')
    expect((await take).subarray(0, -4).toString('hex')).toBe('01090100') // from the beginning
    receive('STAGE')
    receive('JUMP')
    await db.waitFor('13.5')
    expect(await db.all('SELECT name FROM myTable WHERE id IN (5, 6) ORDER BY id')).toEqual([
      { name: 'Eve' },
      { name: 'Bob' },
    ])
    expect(db.status()).toMatchObject({ logRows: 5, counters: { jumps: 1, patchesStaged: 2 } })

    receive('TAKE')
    receive('MESSAGE')
    const down = eventOf(db, 'link', ({ state }) => state === 'down')
    receive('FORK')
    expect(await down).toMatchObject({ code: 'REPLIC_FORK' })
  })
})

// The other side of a link.
class Peer extends EventEmitter {
  send(frame) {
    this.emit(`sent ${frame[1]}`, Buffer.from(frame))
  }

  /** The next frame of that type. */
  next(type) {
    return new Promise((resolve) => this.once(`sent ${type}`, resolve))
  }

  close() {
    this.emit('close')
  }
}

describe('links', () => {
  const slug = (heading) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-')
  const links = DOCUMENTS.flatMap((from) =>
    [...text(from).matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => match[1])
      .filter((target) => !/^\w+:/.test(target))
      .map((target) => [from, target]),
  )

  it('are there', () => expect(links.length).toBeGreaterThan(5))

  it.each(links)('%s: %s', (from, target) => {
    const [path, anchor] = target.split('#')
    const file = path ? join(dirname(from), path) : from
    expect(existsSync(join(ROOT, file)), file).toBe(true)
    expect(relative(ROOT, join(ROOT, file))).not.toMatch(/^\.\./) // it is in the package's repository
    if (anchor === undefined) return
    const headings = [...text(file).matchAll(/^#+ (.*)$/gm)].map((match) => slug(match[1]))
    expect(headings).toContain(anchor)
  })
})
