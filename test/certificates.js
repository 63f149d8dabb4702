// Certificates for tests, made by openssl. No test runner, so that children and examples can import it.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

/** An authority: { ca: its certificate, sign({ name, alt, days }) -> { cert, key } }, all as PEM texts. */
export function authority() {
  return inFolder((openssl, read) => {
    const files = ['-keyout', 'ca.key', '-out', 'ca.pem']
    openssl('req', '-x509', ...KEY, '-days', '2', '-subj', '/CN=authority', ...files)
    const [ca, caKey] = [read('ca.pem'), read('ca.key')]
    return { ca, sign: (wanted) => sign(ca, caKey, wanted) }
  })
}

/** `alt` as openssl writes it: DNS:localhost,IP:127.0.0.1. Negative `days`: it has expired. */
function sign(ca, caKey, { name, alt = 'IP:127.0.0.1', days = 2 }) {
  return inFolder((openssl, read, write) => {
    write('ca.pem', ca)
    write('ca.key', caKey)
    write('alt', `subjectAltName=${alt}\n`)
    openssl('req', ...KEY, '-subj', `/CN=${name}`, '-keyout', 'key', '-out', 'request')
    const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'alt']
    openssl('x509', '-req', '-in', 'request', ...by, '-days', `${days}`, '-out', 'cert')
    return { cert: read('cert'), key: read('key') }
  })
}

function inFolder(work) {
  const dir = mkdtempSync(join(tmpdir(), 'replic-certificates-'))
  const openssl = (...args) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' })
  const read = (name) => readFileSync(join(dir, name), 'utf8')
  const write = (name, text) => writeFileSync(join(dir, name), text)
  try {
    return work(openssl, read, write)
  } finally {
    rmSync(dir, { recursive: true })
  }
}
