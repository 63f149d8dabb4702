// metrics(): the figures of status() as OpenMetrics text. Base units (seconds, bytes), one family per
// figure, `peer` and `link` as labels of what belongs to a link.

/** The Content-Type of what metrics() returns. */
export const METRICS_CONTENT_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8'

// Of the whole replica: family -> [type, help, value of a status: a number, a histogram, or a list of
// [labels, number]]. The unit is what the name ends with.
const REPLICA = {
  replic_replica: [
    'info',
    'The replica: its peerId and its file.',
    ({ peerId, path }) => [[{ peer: peerId, path }, 1]],
  ],
  replic_open: ['gauge', '1 while it is open.', ({ state }) => Number(state === 'open')],
  replic_clock_seconds: ['gauge', 'Highest patch clock, Unix time.', ({ clock }) => clock / 1000],
  replic_clock_ahead_seconds: [
    'gauge',
    'That clock minus the wall clock, 0 where it is behind. Label: the peer whose patch set it there.',
    ({ clockAheadMs, clockRaisedBy }) => [[{ origin: clockRaisedBy ?? '' }, clockAheadMs / 1000]],
  ],
  replic_clock_off_seconds: [
    'gauge',
    'The wall clock minus those of most linked peers: the least by which more than half of them differ.',
    ({ clockOffMs }) => clockOffMs / 1000,
  ],
  replic_applied_sequence: [
    'gauge',
    'Per origin (a peerId) the sequence up to which everything is applied.',
    ({ vector }) => Object.entries(vector).map(([origin, sequence]) => [{ origin }, sequence]),
  ],
  replic_tables: ['gauge', 'Replicated tables.', ({ tables }) => tables.length],
  replic_pending_patches: [
    'gauge',
    'Patches kept because the schema here cannot hold them.',
    ({ pending }) => pending.reduce((sum, { patches }) => sum + patches, 0),
  ],
  replic_stuck_rows: [
    'gauge',
    'Rows that are missing because the schema here cannot store them.',
    ({ stuck }) => stuck.rows,
  ],
  replic_log_rows: ['gauge', 'Patches in the log.', ({ logRows }) => logRows],
  replic_file_gone: [
    'gauge',
    '1 once the file was removed, renamed or replaced: nothing is written any more.',
    ({ fileGone }) => (fileGone === null ? 0 : 1),
  ],
  replic_file_bytes: ['gauge', 'Size of the database file.', ({ fileBytes }) => fileBytes],
  replic_wal_bytes: ['gauge', 'Size of its write-ahead log.', ({ walBytes }) => walBytes],
  replic_queue_calls: ['gauge', 'Calls waiting or under way.', ({ queue }) => queue.calls],
  replic_queue_bytes: ['gauge', 'Values and frames waiting.', ({ queue }) => queue.bytes],
  replic_locked_seconds: [
    'gauge',
    'How long something has waited for another program that has the write lock.',
    ({ lockedSince }) => (lockedSince ? Math.max(0, Date.now() - lockedSince) / 1000 : 0),
  ],
  replic_waits: ['gauge', 'Calls of waitFor that wait.', ({ waits }) => waits],
  replic_batch_calls: [
    'histogram',
    'Calls and received frames per transaction.',
    ({ batches }) => batches.calls,
  ],
  replic_batch_max_calls: ['gauge', 'The most of them.', ({ batches }) => batches.calls.max],
  replic_batch_seconds: [
    'histogram',
    'Time per transaction, commit included.',
    ({ batches }) => batches.seconds,
  ],
  replic_batch_max_seconds: ['gauge', 'The longest.', ({ batches }) => batches.seconds.max],
}

// status().counters, all of them.
const COUNTERS = {
  commits: 'Transactions committed.',
  groupsWritten: 'Calls that have written.',
  patchesWritten: 'Rows written here.',
  patchesApplied: 'Patches of other peers applied.',
  patchesDuplicate: 'Patches received that were there already.',
  patchesRelayed: 'Patches of other peers sent.',
  patchesPruned: 'Patches removed by retention.',
  patchesStaged: 'Patches received for a jump.',
  framesEarly: 'Frames that arrived before their predecessors.',
  framesDroppedEarly: 'Such frames dropped for lack of room.',
  retransmissions: 'Patches sent again because they were asked for.',
  rowsWaiting: 'Merges that left a row waiting for its NOT NULL columns.',
  jumps: 'Jumps completed here.',
  jumpsResumed: 'Jumps gone on with after an interruption.',
  jumpsAbandoned: 'Jumps given up because the patches came another way.',
  skewRefusals: 'Frames held because of a stamp too far ahead.',
  forksHealed: 'Own patches issued anew under a new peerId.',
}

const STATES = ['connecting', 'opening', 'ready', 'standby', 'waiting', 'closed']
const DIRECTIONS = ['sending', 'receiving']

// Of each link, as REPLICA.
const LINK = {
  replic_link: [
    'info',
    'A link: its transport, and its address where there is one.',
    ({ transport, address }) => [[{ transport, address }, 1]],
  ],
  replic_link_ready: [
    'gauge',
    '1 if it carries patches.',
    ({ state }) => Number(state === 'ready'),
  ],
  replic_link_held: [
    'gauge',
    '1 if patches of that peer cannot be applied here at present.',
    ({ held }) => Number(held !== null),
  ],
  replic_link_lag_patches: ['gauge', 'Patches not acknowledged by that peer.', ({ lag }) => lag],
  replic_link_lag_seconds: ['gauge', 'Age of the oldest of them.', ({ lagMs }) => lagMs / 1000],
  replic_link_behind_patches: [
    'gauge',
    'Patches that it has announced and this replica lacks.',
    ({ behind }) => behind,
  ],
  replic_link_unacknowledged_bytes: [
    'gauge',
    'Sent and not acknowledged.',
    ({ unackedBytes }) => unackedBytes,
  ],
  replic_link_clock_skew_seconds: [
    'gauge',
    'Its wall clock minus the one here.',
    ({ skewMs }) => skewMs / 1000,
  ],
  replic_link_received_bytes: ['counter', 'Bytes received.', ({ bytesIn }) => bytesIn],
  replic_link_sent_bytes: ['counter', 'Bytes sent.', ({ bytesOut }) => bytesOut],
  replic_link_received_frames: ['counter', 'Frames received.', ({ framesIn }) => framesIn],
  replic_link_sent_frames: ['counter', 'Frames sent.', ({ framesOut }) => framesOut],
  replic_link_retransmitted_patches: [
    'counter',
    'Patches sent again because they were asked for.',
    ({ retransmitted }) => retransmitted,
  ],
  replic_link_staged_patches: ['gauge', 'Patches received for a jump.', ({ staged }) => staged],
  replic_link_jumping: [
    'gauge',
    '1 while a jump goes over it in that direction.',
    ({ jump }) => DIRECTIONS.map((direction) => [{ direction }, Number(jump === direction)]),
  ],
}

const snakeCase = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** The text of a status. */
export function toMetrics(status) {
  const lines = []
  for (const [name, [type, help, value]] of Object.entries(REPLICA)) {
    describe(lines, name, type, help)
    sample(lines, name, type, {}, value(status))
  }
  for (const [name, help] of Object.entries(COUNTERS)) {
    const family = `replic_${snakeCase(name)}`
    describe(lines, family, 'counter', help)
    sample(lines, family, 'counter', {}, status.counters[name])
  }
  links(lines, status.links)
  lines.push('# EOF', '')
  return lines.join('\n')
}

function links(lines, all) {
  describe(lines, 'replic_links', 'gauge', 'Links by state.')
  const inState = (state) => all.filter((link) => link.state === state).length
  sample(
    lines,
    'replic_links',
    'gauge',
    {},
    STATES.map((state) => [{ state }, inState(state)]),
  )
  const told = all.filter(({ bytesIn }) => bytesIn !== undefined) // that have any figures
  for (const [name, [type, help, value]] of Object.entries(LINK)) {
    describe(lines, name, type, help)
    for (const status of told) {
      sample(lines, name, type, { peer: status.peerId, link: status.link }, value(status))
    }
  }
}

function describe(lines, name, type, help) {
  const [, unit] = /_(seconds|bytes)$/.exec(name) ?? []
  lines.push(`# TYPE ${name} ${type}`)
  if (unit) lines.push(`# UNIT ${name} ${unit}`)
  lines.push(`# HELP ${name} ${help}`)
}

const SUFFIX = { counter: '_total', info: '_info', gauge: '' }

function sample(lines, name, type, labels, value) {
  if (type === 'histogram') return histogram(lines, name, labels, value)
  const values = Array.isArray(value) ? value : [[{}, value]]
  for (const [more, number] of values) {
    lines.push(`${name}${SUFFIX[type]}${braces({ ...labels, ...more })} ${number}`)
  }
}

function histogram(lines, name, labels, { count, sum, buckets }) {
  for (const { le, count: n } of [...buckets, { le: '+Inf', count }]) {
    lines.push(`${name}_bucket${braces({ ...labels, le: canonical(le) })} ${n}`)
  }
  lines.push(`${name}_count${braces(labels)} ${count}`, `${name}_sum${braces(labels)} ${sum}`)
}

// Bounds are floats: 1 is written "1.0".
const canonical = (le) => (Number.isInteger(le) ? le.toFixed(1) : `${le}`)

// A label without a value is as good as none.
function braces(labels) {
  const given = Object.entries(labels).filter(([, value]) => value !== null && value !== '')
  if (given.length === 0) return ''
  return `{${given.map(([name, value]) => `${name}="${escaped(`${value}`)}"`).join(',')}}`
}

const ESCAPES = { '\\': '\\\\', '"': '\\"', '\n': '\\n' }
const escaped = (value) => value.replace(/[\\"\n]/g, (character) => ESCAPES[character])
