// The token's way into a response of node:http or node:http2: at the last moment, when the head is written,
// whoever writes it: a handler that answers, one that streams, or the server's answer to one that threw.

/** The way of one visit's token into the head of one response. */
export class Head {
  #header
  #visit
  #isDue = false // the token has still to be added

  /** `header`: the header's name, or null for none. `before`: another replica's in the same head, or undefined. */
  constructor(header, visit, before) {
    this.#header = header
    this.#visit = visit
    this.before = before
  }

  get visit() {
    return this.#visit
  }

  /** From now on the answer is the handler's, and gets the token. */
  begin() {
    this.#isDue = true
  }

  /** Adds the token to what writeHead(...args) is about to write. */
  add(res, args) {
    if (!this.#isDue) return
    this.#isDue = false
    if (res.headersSent) return
    const token = this.#visit.token()
    if (!token) return
    const cookie = this.#visit.cookie(token)
    const given = args.at(-1)
    if (Array.isArray(given)) {
      args[args.length - 1] = withList(res, given, this.#header, token, cookie)
    } else {
      if (this.#header) res.setHeader(this.#header, token)
      if (cookie) addCookie(res, args, cookie)
    }
  }

  /** Has writeHead() of this one response do that. */
  hook(res) {
    this.#isDue = true
    const { writeHead } = res
    const head = this
    res.writeHead = function (...args) {
      head.add(this, args)
      return writeHead.apply(this, args)
    }
  }
}

const isCookie = (name) => `${name}`.toLowerCase() === 'set-cookie'

// Cookies that writeHead() is given replace those that were set before: then ours has to stand among them.
function addCookie(res, args, cookie) {
  const given = args.at(-1)
  const name = typeof given === 'object' && given !== null && Object.keys(given).find(isCookie)
  if (name) args[args.length - 1] = { ...given, [name]: [given[name], cookie].flat() }
  else res.appendHeader('Set-Cookie', cookie)
}

// A flat list of names and values goes out as it is, names that are repeated too, unless a header is set.
function withList(res, given, header, token, cookie) {
  const list = header ? [...given, header, token] : [...given]
  if (!cookie) return list
  const cookies = []
  for (let i = list.length - 2; i >= 0; i -= 2) {
    if (isCookie(list[i])) cookies.unshift(...[list.splice(i, 2)[1]].flat())
  }
  const before = cookies.length > 0 ? cookies : [res.getHeader('set-cookie') ?? []].flat()
  return [...list, 'Set-Cookie', [...before, cookie]]
}

/** The signal of a client that goes away before it is answered. */
export function signalOf(res) {
  const controller = new AbortController()
  if (res.destroyed) controller.abort()
  res.once('close', () => controller.abort())
  return controller.signal
}
