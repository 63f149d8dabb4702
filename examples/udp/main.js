// Three peers that find each other in a multicast group, and then link over UDP. What they send is
// authenticated with a secret that all of them have. Give another interface for other machines:
//   node examples/udp/main.js [address] [port]

import { bind } from 'replic-sqlite/udp'
import { openNotes, shareNotes } from '../note.js'

const [address = '127.0.0.1', port = '47001'] = process.argv.slice(2)
const multicast = { group: '239.83.81.76', port: Number(port), interface: address, announceMs: 100 }

const peers = []
for (let i = 0; i < 3; i++) {
  const peer = await openNotes({ secret: 'of this example, and of nothing else' })
  await bind(peer.db, { address, multicast })
  peers.push(peer)
}
await shareNotes(peers)
