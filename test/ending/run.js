// Terminates a worker at each place from which the addon calls what Node refuses in an environment that ends.
//   node test/ending/run.js <package> <folder>

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, rmSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { argv, env } from 'node:process'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'

const [root, folder] = argv.slice(2)
const EVERYTHING = fileURLToPath(new URL('./everything.js', import.meta.url))
env.REPLIC_ENDING_PIPE = join(folder, 'pipe')
execFileSync('mkfifo', [env.REPLIC_ENDING_PIPE])
const pipe = new Socket({ fd: openSync(env.REPLIC_ENDING_PIPE, 'r+') })

/** false: the worker has done everything, as there are not so many places. */
async function endAt(place) {
  env.REPLIC_ENDING = `${place}`
  const files = join(folder, `${place}`)
  mkdirSync(files)
  const worker = new Worker(EVERYTHING, { workerData: { root, folder: files } })
  let isEnding = false
  const failed = new Promise((_resolve, reject) => {
    worker.on('error', (error) => isEnding || reject(error)) // where it ends it may be told anything
  })
  const told = once(pipe, 'data').then(() => {
    isEnding = true
  })
  await Promise.race([once(worker, 'message'), told, failed])
  await worker.terminate()
  rmSync(files, { recursive: true })
  return isEnding
}

let places = 0
while (await endAt(places + 1)) places++
console.log(places)
pipe.destroy()
