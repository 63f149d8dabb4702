// What the demo shows: in a terminal a block that is drawn again and again below the news, in a pipe
// plain lines, one a second.

const DRAW_MS = 200
const LINE_MS = 1000

export const number = (n) => n.toLocaleString('en-US')

/** A progress display. `look()` gives { phase, seconds, peers: [{ name, state, rows, patches, rate, lag, linksUp, links }] }. */
export class Progress {
  #out
  #look
  #timer
  #height = 0 // lines of the block on the screen

  constructor(out, look) {
    this.#out = out
    this.#look = look
  }

  start() {
    const show = () => (this.#out.isTTY ? this.#draw() : this.#line())
    this.#timer = setInterval(show, this.#out.isTTY ? DRAW_MS : LINE_MS)
  }

  /** A line that stays. */
  news(text) {
    this.#erase()
    this.#out.write(`${text}\n`)
    if (this.#timer && this.#out.isTTY) this.#draw()
  }

  stop() {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#erase()
  }

  #line() {
    const { phase, seconds, peers } = this.#look()
    const each = (figure) => peers.map((peer) => number(peer[figure])).join(' ')
    this.#out.write(
      `${seconds.toFixed(1).padStart(5)} s  ${phase}: live rows ${each('rows')}, ` +
        `patches/s ${each('rate')}, lag ${each('lag')}, links ${each('linksUp')}\n`,
    )
  }

  #draw() {
    const { phase, seconds, peers } = this.#look()
    const rows = peers.map((peer) => [
      peer.name,
      peer.state,
      number(peer.rows),
      number(peer.patches),
      number(peer.rate),
      number(peer.lag),
      `${peer.linksUp}/${peer.links}`,
    ])
    const head = ['peer', 'state', 'live rows', 'patches', 'patches/s', 'lag', 'links']
    const lines = [`${phase}, ${seconds.toFixed(1)} s`, ...table([head, ...rows], [0, 1])]
    this.#erase()
    const width = this.#out.columns || 80 // a longer line would wrap, and the block be higher
    for (const line of lines) this.#out.write(`${line.slice(0, width - 1)}\n`)
    this.#height = lines.length
  }

  #erase() {
    if (this.#height > 0) this.#out.write(`\x1b[${this.#height}A\x1b[J`)
    this.#height = 0
  }
}

/** Lines of a table from rows of texts; the columns listed in `left` are aligned to the left. */
export function table(rows, left) {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)))
  const cell = (text, i) => (left.includes(i) ? text.padEnd(widths[i]) : text.padStart(widths[i]))
  return rows.map((row) => row.map(cell).join('  ').trimEnd())
}
