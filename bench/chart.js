// The chart of npm run bench: for each benchmark, how many times as fast as the main peer, on a logarithmic
// scale, with the ratios to reach as marks.

const OURS = 'replic-sqlite'
const [LEFT, RIGHT, LINE, TOP] = [330, 40, 22, 56]
const WIDTH = 860
const [LEAST, MOST] = [0.05, 100]

const escaped = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;')
const x = (ratio) => {
  const share = Math.log(Math.min(MOST, Math.max(LEAST, ratio)) / LEAST) / Math.log(MOST / LEAST)
  return Math.round(LEFT + share * (WIDTH - LEFT - RIGHT))
}

/** The bars of a result: one for each other side. Where less is better, the ratio is turned round. */
function barsOf({ title, unit, reach, medians }) {
  if (typeof medians[OURS] !== 'number') return []
  const turn = (ratio) => (unit === 'per second' ? ratio : 1 / ratio)
  const others = Object.entries(medians).filter(([side]) => side !== OURS)
  return others.map(([side, theirs], i) => ({
    title: i === 0 ? title : '',
    side,
    ratio: turn(medians[OURS] / theirs),
    goal: reach[side] === undefined ? undefined : turn(reach[side]),
  }))
}

function bar({ title, side, ratio, goal }, i) {
  const y = TOP + i * LINE
  const [from, to] = [x(1), x(ratio)]
  const color = ratio >= (goal ?? 1) ? '#2a7f62' : '#b5651d'
  const mark =
    goal === undefined
      ? ''
      : `<line x1="${x(goal)}" x2="${x(goal)}" y1="${y - 2}" y2="${y + 16}" stroke="#111" stroke-width="2"/>`
  return (
    `<text x="8" y="${y + 12}">${escaped(title)}</text>` +
    `<rect x="${Math.min(from, to)}" y="${y}" width="${Math.max(1, Math.abs(to - from))}" height="14" fill="${color}"/>` +
    `<text x="${Math.max(from, to) + 5}" y="${y + 12}" fill="#444">${ratio.toFixed(2)} : ${escaped(side)}</text>${mark}`
  )
}

/** An SVG text. `results`: as in bench.json. */
export function chart(results, { program, cores }) {
  const bars = results.flatMap(barsOf)
  const height = TOP + bars.length * LINE + 12
  const grid = [0.1, 0.5, 1, 3, 10, 30].map(
    (at) =>
      `<line x1="${x(at)}" x2="${x(at)}" y1="${TOP - 8}" y2="${height - 8}" stroke="${at === 1 ? '#888' : '#ddd'}"/>` +
      `<text x="${x(at)}" y="${TOP - 12}" text-anchor="middle" fill="#666">${at}</text>`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH + 140}" height="${height}" font-family="sans-serif" font-size="12" role="img" aria-label="Ratios of npm run bench">
<title>Ratios of npm run bench</title>
<rect width="100%" height="100%" fill="#fff"/>
<text x="8" y="20" font-size="14">replic-sqlite, replicated, against others without replication: how many times as fast</text>
<text x="8" y="38" fill="#666">${escaped(program)}, ${cores} cores; black marks: the ratio to reach</text>
${grid.join('\n')}
${bars.map(bar).join('\n')}
</svg>
`
}
