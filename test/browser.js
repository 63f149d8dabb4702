// A headless Chromium, driven by the DevTools protocol over a WebSocket: as much of it as tests of pages need.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { tempDir } from './helpers.js'

const PROGRAM = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync)
const ENTER = { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' }

/** Why there is no browser, as { why, isFixable }; null if there is one. */
export const whyNoBrowser = () =>
  PROGRAM ? null : { why: 'there is no Chromium (package chromium)', isFixable: true }

/** Starts a browser with more `flags`, which ends with the test. Gives { open(url) }: a page in a profile of its own. */
export async function startBrowser(...flags) {
  const profile = join(tempDir(), 'profile')
  const args = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
  const own = ['--no-first-run', '--remote-debugging-port=0', `--user-data-dir=${profile}`]
  const child = spawn(PROGRAM, [...args, ...own, ...flags, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true, // a group of its own: the processes that it starts write to the profile, too
  })
  const ended = once(child, 'close') // of stderr, by the last of them
  onTestFinished(async () => {
    process.kill(-child.pid, 'SIGKILL')
    child.stderr.resume()
    await ended
  })
  let url
  for await (const line of createInterface({ input: child.stderr })) {
    url = /^DevTools listening on (ws:.*)/.exec(line)?.[1]
    if (url) break
  }
  if (!url) throw new Error('Chromium has ended')
  child.stderr.resume()
  const call = await connect(url)
  return { open: (address) => openPage(call, address) }
}

/** The protocol: (method, params, sessionId) => a promise of the result. */
async function connect(url) {
  const socket = new WebSocket(url)
  onTestFinished(() => socket.terminate())
  await once(socket, 'open')
  const calls = new Map()
  socket.on('message', (data) => {
    const { id, result, error } = JSON.parse(data)
    if (id === undefined) return // an event
    const { resolve, reject } = calls.get(id)
    calls.delete(id)
    if (error) reject(new Error(error.message))
    else resolve(result)
  })
  socket.on('close', () => {
    for (const { reject } of calls.values()) reject(new Error('Chromium has ended'))
  })
  let last = 0
  return (method, params = {}, sessionId) =>
    new Promise((resolve, reject) => {
      calls.set(++last, { resolve, reject })
      socket.send(JSON.stringify({ id: last, method, params, sessionId }))
    })
}

async function openPage(call, url) {
  const { browserContextId } = await call('Target.createBrowserContext') // shares nothing with other ones
  const { targetId } = await call('Target.createTarget', { url: 'about:blank', browserContextId })
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true })
  const send = (method, params) => call(method, params, sessionId)
  await send('Emulation.setFocusEmulationEnabled', { enabled: true })
  await send('Page.navigate', { url }) // resolves when the new document has begun

  /** What a function gives in the page; its arguments are JSON. */
  const run = async (fn, ...args) => {
    const expression = `(${fn})(...${JSON.stringify(args)})`
    const { result, exceptionDetails } = await send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })
    if (exceptionDetails) throw new Error(exceptionDetails.exception.description)
    return result.value
  }
  /** Resolves with what a function gives, once that is true: looked at whenever the document has changed. */
  const when = (fn, ...args) =>
    run(
      `(...args) => new Promise((resolve) => {
      const look = () => {
        const found = (${fn})(...args)
        if (!found) return
        observer.disconnect()
        resolve(found)
      }
      const all = { subtree: true, childList: true, attributes: true, characterData: true }
      const observer = new MutationObserver(look)
      observer.observe(document, all)
      look()
    })`,
      ...args,
    )
  /** A click in the middle of an element that a function gives, once there is one. */
  const click = async (fn, ...args) => {
    const [x, y] = await when(
      `(...args) => {
      const box = (${fn})(...args)?.getBoundingClientRect()
      return box?.width && [box.x + box.width / 2, box.y + box.height / 2]
    }`,
      ...args,
    )
    const at = { x, y, button: 'left', clickCount: 1 }
    await send('Input.dispatchMouseEvent', { type: 'mousePressed', ...at })
    await send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...at })
  }
  return {
    run,
    when,
    click,
    type: (text) => send('Input.insertText', { text }),
    enter: async () => {
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...ENTER })
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...ENTER })
    },
  }
}
