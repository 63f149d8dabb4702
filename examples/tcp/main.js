// Two peers over TCP with TLS: each shows a certificate of one authority, and the name in it decides who
// may link. Certificates for trying it out:
//   openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.pem
//   openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=peer -addext subjectAltName=IP:127.0.0.1 \
//     -CA ca.pem -CAkey ca.key -keyout peer.key -out peer.pem
//   node examples/tcp/main.js ca.pem peer.pem peer.key

import { readFileSync } from 'node:fs'
import { connect, listen } from 'replic-sqlite/tcp'
import { openNotes, shareNotes } from '../note.js'

const files = process.argv.slice(2)
if (files.length !== 3) throw new Error('usage: main.js ca.pem peer.pem peer.key')
const [ca, cert, key] = files.map((file) => readFileSync(file))

const authorize = (_peerId, { tls }) => tls.isTrusted && tls.certificate.subject.CN === 'peer'
const peers = [await openNotes({ authorize }), await openNotes({ authorize })]
const [near, far] = peers.map(({ db }) => db)
near.on('link', ({ state, reason }) => console.log('link:', reason ?? state))

const listener = await listen(far, { tls: { ca, cert, key, requestCert: true } })
connect(near, { port: listener.address().port, tls: { ca, cert, key } })
await shareNotes(peers)
