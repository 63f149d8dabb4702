// npm test: all tests, one part after another, also after a failure. Ends with "N passed, N failed"
// over all parts, and a status that is not 0 unless all passed. A skipped test has not passed.

import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const OUT = `${ROOT}/build/test`

/** Runs an npm script in this terminal; whether it ended with status 0. */
function npmRun(script) {
  console.log(`\n# npm run ${script}`)
  const shell = process.platform === 'win32' // npm is a .cmd there
  return (
    spawnSync('npm', ['run', '--silent', script], { cwd: ROOT, stdio: 'inherit', shell }).status ===
    0
  )
}

/** Runs a part and reads the counts it leaves in `file`; a part that dies is one failure more. */
function part(script, file, read) {
  rmSync(`${OUT}/${file}`, { force: true })
  const ok = npmRun(script)
  let [passed, failed] = [0, 0]
  try {
    ;[passed, failed] = read(readFileSync(`${OUT}/${file}`, 'utf8'))
  } catch (error) {
    console.error(`${script} left no counts: ${error.message}`)
  }
  return [passed, ok ? failed : Math.max(failed, 1)]
}

function readVitest(json) {
  const { numTotalTests, numPassedTests, testResults } = JSON.parse(json)
  const isLost = ({ status, assertionResults }) =>
    status === 'failed' && assertionResults.every((test) => test.status !== 'failed')
  return [numPassedTests, numTotalTests - numPassedTests + testResults.filter(isLost).length]
}

mkdirSync(OUT, { recursive: true })
const results = [
  part('test:core', 'core.count', (text) => text.split(' ').map(Number)),
  part('test:js', 'vitest.json', readVitest),
  npmRun('test:types') ? [1, 0] : [0, 1],
]
const [passed, failed] = [0, 1].map((i) => results.reduce((sum, result) => sum + result[i], 0))
writeFileSync(`${OUT}/total.count`, `${passed} ${failed}\n`)
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
