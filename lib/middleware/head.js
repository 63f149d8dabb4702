// The token's way into a response of node:http or node:http2: at the last moment, when the head is written,
// whoever writes it: a handler that answers, one that streams, or the server's answer to one that threw.

/** Has the visit's token in the head of `res`. `header`: the header's name, if it is to have one. */
export function onHead(res, header, visit) {
  const { writeHead } = res
  let isDone = false
  res.writeHead = function (...args) {
    if (!isDone && !this.headersSent) {
      const { token, cookie } = visit.answer()
      const given = args.at(-1)
      if (Array.isArray(given)) args[args.length - 1] = withList(this, given, header, token, cookie)
      else {
        if (token) this.setHeader(header, token)
        if (cookie) addCookie(this, args, cookie)
      }
    }
    isDone = true
    return writeHead.apply(this, args)
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
  const list = token ? [...given, header, token] : [...given]
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
