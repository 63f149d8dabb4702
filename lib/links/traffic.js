// What comes in over a link between two heartbeats: parts of a large frame, and MESSAGEs, of which not any number is taken.

const MOST_MESSAGES = 8 * 1024 * 1024 // of a link, between two heartbeats
const MESSAGE_COST = 16 * 1024 // bytes for which it takes as long as for any one of them

export class Traffic {
  #messageBytes = 0 // that came in since the last heartbeat, and what they cost
  #hasProgressed = false // since the last heartbeat a part of a frame has come in
  #isMidFrame = false // the rest of it has not
  isCarrying = false // nor had it at a heartbeat of this side's

  /** A part of a frame has come in. */
  progressed() {
    this.#hasProgressed = this.#isMidFrame = true
  }

  /** A whole frame is here. Returns whether it took longer than a heartbeat. */
  wasWhole() {
    const wasCarrying = this.isCarrying
    this.#isMidFrame = this.isCarrying = false
    return wasCarrying
  }

  /** A heartbeat of this side's. Returns whether a part of a frame has come in since the last one. */
  beat() {
    const hasProgressed = this.#hasProgressed
    this.#hasProgressed = false
    this.isCarrying ||= this.#isMidFrame
    return hasProgressed
  }

  /** Whether a MESSAGE is taken. Else it is lost, as any may be. */
  takesMessage(length) {
    this.#messageBytes += length + MESSAGE_COST
    return this.#messageBytes <= MOST_MESSAGES
  }

  /** From here on MESSAGEs are counted again. Returns whether there were too many. */
  beginMessages() {
    const wereTooMany = this.#messageBytes > MOST_MESSAGES
    this.#messageBytes = 0
    return wereTooMany
  }
}
