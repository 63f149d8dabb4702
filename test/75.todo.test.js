// The todo application of examples/todo: three nodes, pages in two real browsers, and a node that is killed.

import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { startBrowser, whyNoBrowser } from './browser.js'
import { isTested } from './chaos/play.js'
import { startProcess, tempDir } from './helpers.js'
import { freePort } from './servers.js'

const MAIN = fileURLToPath(new URL('../examples/todo/main.js', import.meta.url))

/** Three nodes, each linked to those before it: { url, kill(), start() }. */
async function startNodes() {
  const dir = tempDir()
  const ports = [await freePort(), await freePort(), await freePort()]
  const nodes = ports.map((port, i) => {
    const others = ports.slice(0, i).map((other) => `ws://127.0.0.1:${other}`)
    const node = { url: `http://127.0.0.1:${port}` }
    node.start = async () => {
      const child = startProcess(execPath, [MAIN, join(dir, `${i}.db`), port, ...others])
      if ((await child.line()) === null) expect.fail((await child.ended).stderr)
      node.kill = async () => {
        child.kill('SIGKILL')
        await child.ended
      }
    }
    return node
  })
  for (const node of nodes) await node.start()
  return nodes
}

/** The page of a node: what its user does, and sees. */
async function openTodos(browser, url) {
  const page = await browser.open(url)
  const click = (title, part) =>
    page.click(
      (wanted, selector) =>
        [...document.querySelectorAll('li')]
          .find((row) => row.querySelector('.title').value === wanted)
          ?.querySelector(selector),
      title,
      part,
    )
  return {
    add: async (title) => {
      await page.click(() => document.getElementById('new'))
      await page.type(title)
      await page.enter()
    },
    check: (title) => click(title, '[type=checkbox]'),
    remove: (title) => click(title, 'button'),
    /** Writes `parts` in the place of a title; before the last one, awaits what `meanwhile` gives. */
    rename: async (title, parts, meanwhile) => {
      await click(title, '.title')
      await page.run(() => document.activeElement.select())
      for (const part of parts.slice(0, -1)) await page.type(part)
      await meanwhile()
      await page.type(parts.at(-1))
      await page.enter()
    },
    /** Resolves when it shows these todos, in any order; those that are done in capitals. */
    shows: (...titles) =>
      page.when((wanted) => {
        const rows = [...document.querySelectorAll('li')].map((row) => {
          const { value } = row.querySelector('.title')
          return row.classList.contains('done') ? value.toUpperCase() : value
        })
        return rows.sort().join() === wanted
      }, titles.sort().join()),
    says: (text) =>
      page.when((wanted) => document.getElementById('state')?.textContent.startsWith(wanted), text),
    titles: () =>
      page.run(() => [...document.querySelectorAll('.title')].map(({ value }) => value)),
  }
}

it.skipIf(!isTested('the todo application in a browser', whyNoBrowser()))(
  'is one list on three nodes, of which one is killed and comes back',
  async () => {
    const nodes = await startNodes()
    const browsers = await Promise.all([startBrowser(), startBrowser()])
    const open = (browser, { url }) => openTodos(browser, url)
    const a = await open(browsers[0], nodes[0])
    const [b, c] = [await open(browsers[1], nodes[1]), await open(browsers[1], nodes[2])]

    await a.add('milk')
    await b.shows('milk')
    await b.add('bread')
    await a.shows('milk', 'bread')
    // Both edit the same todo at the same time: one is in the middle of a word when the other one's edit comes in.
    await b.rename('milk', ['oat', ' milk'], async () => {
      await a.check('milk')
      await b.shows('OAT', 'bread')
    })
    await Promise.all([a, b, c].map((page) => page.shows('OAT MILK', 'bread')))

    await nodes[0].kill()
    await a.says('not connected')
    await a.add('salt') // kept by the page
    await b.add('tea')
    await c.shows('OAT MILK', 'bread', 'tea')
    await c.remove('bread')
    await b.shows('OAT MILK', 'tea')

    await nodes[0].start()
    await a.says('connected')
    await Promise.all([a, b, c].map((page) => page.shows('OAT MILK', 'salt', 'tea')))
    const [first, ...others] = await Promise.all([a, b, c].map((page) => page.titles()))
    for (const other of others) expect(other).toEqual(first) // in the same order, too
  },
  300_000, // two browsers on a busy machine
)
