// replic-sqlite backup FILE TARGET

import { statSync } from 'node:fs'
import { copy, Peek, pathOf, print, toJson } from './command.js'

export const help = `replic-sqlite backup FILE TARGET [--json]

Copies a database as it is at one moment, also while a process has it open. What lies at TARGET is
replaced in the end, in one step, if it is a database that nobody has open. Whoever opens the copy is
a new peer with everything that the file has.
`
export const options = {}
export const files = [2, 2]

export async function run({ files: [file, target], json }) {
  const from = new Peek('backup', file).path
  const to = pathOf('backup', target)
  copy('backup', from, to)
  const { size: bytes } = statSync(to)
  print(json ? toJson({ file: from, target: to, bytes }) : `${from} -> ${to}: ${bytes} bytes`)
}
