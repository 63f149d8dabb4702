// The states of a link, of which it is in one at a time:
//
//   connecting ──> proving ──> authorizing ──> opening ──> ready <──> standby        any of them ──> ending ──> closed
//
//   connecting    the socket is not open yet
//   proving       the other side has to show who it is: by the secret, or by an introduction where there is none
//   authorizing   authorize() has been asked, and has not answered
//   opening       the core knows of it, and waits for the other side's HELLO
//   ready         both send and receive; standby: another link to the same peer does
//   ending        this side closes it, and the connection is not gone yet
//
// A link without a secret and without authorize() opens at once.

/** What status() calls a state. One that is ending is called what it was. */
export const SHOWN = {
  connecting: 'connecting',
  proving: 'opening',
  authorizing: 'opening',
  opening: 'opening',
  ready: 'ready',
  standby: 'standby',
  closed: 'closed',
}
export const UNANSWERED = new Set(['proving', 'authorizing', 'opening']) // what was said is said again
export const IN_CORE = new Set(['opening', 'ready', 'standby']) // the core knows of it
export const UP = new Set(['ready', 'standby'])
export const OVER = new Set(['ending', 'closed'])
