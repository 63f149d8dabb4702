#!/usr/bin/env node
// npx replic-sqlite: finds the command, runs it, and turns what comes of it into an exit code.
// docs/cli.md describes the commands; each is a module of this folder.

import { readFileSync } from 'node:fs'
import { nearest } from '../base/options.js'
import { EXIT, Mistake, output, parse } from './command.js'

const COMMANDS = {
  status: 'what is in a database file, or how a running peer is',
  serve: 'a peer without code: opens a file, listens and dials',
  verify: 'is a file sound, and is it equal to another one or to a running peer',
  backup: 'copies a database file, also while it is in use',
  decode: 'frames and log rows as readable text',
}

const HELP = `replic-sqlite <command> [options]

${Object.entries(COMMANDS)
  .map(([name, what]) => `  ${name.padEnd(8)} ${what}`)
  .join('\n')}

  --help       of a command: its arguments and options
  --version

Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 verify has found a difference or damage.
`

const version = () =>
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version

async function main([name, ...args]) {
  if (name === '--version') return void process.stdout.write(`${version()}\n`)
  if (name === '--help' || name === 'help') return void process.stdout.write(HELP)
  if (name === undefined) throw new Mistake('a command is missing', HELP)
  if (!Object.hasOwn(COMMANDS, name)) {
    const hint = nearest(name, Object.keys(COMMANDS)) || '; see --help'
    throw new Mistake(`there is no command '${name}'${hint}`)
  }
  const command = await import(`./${name}.js`)
  const given = parse(name, args, command)
  if (given.help) return void process.stdout.write(command.help)
  return command.run(given)
}

// What an error says goes to stderr, as text or, with --json, as one line of JSON.
function report(error) {
  const isOurs = error instanceof Mistake || typeof error.code === 'string'
  const message = isOurs ? error.message : error.stack
  const code = error.code ?? 'REPLIC_INTERNAL'
  if (process.argv.includes('--json')) {
    process.stderr.write(`${JSON.stringify({ error: { code, message } })}\n`)
  } else {
    process.stderr.write(`replic-sqlite: ${message}${isOurs ? ` (${code})` : ''}\n`)
    if (error.usage) process.stderr.write(`\n${error.usage}`)
  }
  return error.code === 'REPLIC_USAGE' ? EXIT.usage : EXIT.failed
}

process.stdout.on('error', (error) =>
  error.code === 'EPIPE' ? output.ended() : process.exit(EXIT.failed),
)

try {
  process.exitCode = (await main(process.argv.slice(2))) ?? EXIT.done
} catch (error) {
  process.exitCode = report(error)
}
