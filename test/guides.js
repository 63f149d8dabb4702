// The programs in the guides: a block of `js` is a program (its first line may say the name of its file, for others to
// import); a block of `text` after it is what it prints.

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { startProcess, tempDir } from './helpers.js'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))
const page = (name) => readFileSync(join(ROOT, 'docs', `${name}.md`), 'utf8')

/** All fenced blocks of a page, in order: { language, body }. */
export const blocksOf = (name) =>
  [...page(name).matchAll(/^```(\w+)\n(.*?)^```/gms)].map(([, language, body]) => ({
    language,
    body,
  }))

/** The programs of a page: { name, source, printed }; printed is undefined where the page does not say. */
export function programsOf(page) {
  const blocks = blocksOf(page)
  return blocks.flatMap(({ language, body }, i) => {
    if (language !== 'js' && language !== 'cjs') return []
    const [, name] = /^\/\/ ([\w-]+\.mjs)/.exec(body) ?? [
      null,
      `${page}-${i}.${language === 'js' ? 'mjs' : 'cjs'}`,
    ]
    const next = blocks[i + 1]
    return [{ name, source: body, printed: next?.language === 'text' ? next.body : undefined }]
  })
}

/** A folder in which the package is installed, with the programs of a page; `change(source)` may alter them. */
export function install(page, change = (source) => source) {
  const dir = tempDir()
  mkdirSync(join(dir, 'node_modules'))
  symlinkSync(ROOT, join(dir, 'node_modules', 'replic-sqlite'), 'junction')
  for (const { name, source } of programsOf(page)) writeFileSync(join(dir, name), change(source))
  return dir
}

/**
 * Starts server.mjs of docs/deployment.md, installed in `cwd`; resolves once it is ready. As startProcess(), with
 * shows(pattern): resolves with the next line of its output that fits.
 */
export async function startServer(cwd, env, [command, ...args] = [execPath]) {
  const server = startProcess(command, [...args, 'server.mjs'], {
    cwd,
    env: { ...process.env, REPLIC_SECRET: 'at least sixteen bytes', ...env },
  })
  const shows = async (pattern) => {
    for (;;) {
      const line = await server.line()
      if (line === null) expect.fail(`before ${pattern}: ${(await server.ended).stderr}`)
      if (pattern.test(line)) return line
    }
  }
  await shows(/^ready$/)
  return { ...server, shows }
}
