// Hosts of a real network, on this machine: network namespaces, plugged into a switch (a bridge in a
// namespace of its own), and cables between two of them. Nothing of it is to be seen outside of them: every
// network has the same addresses, and none meets the machine's own.
//
//   host 0          switch            host 1
//   eth0 10.1.0.1 ── p0 ─ br0 ─ p1 ── eth0 10.1.0.2        and cables: c1 10.2.0.1 ── c0 10.2.0.2

import { execFile, execFileSync } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ip = async (...args) => (await run('ip', args)).stdout
const NAME = /^replic-(\d+)-/ // the process that made it

let networks = 0

/** Why there can be no such network here, as { why, isFixable }; null if there can. */
export async function whyNoNetwork() {
  if (process.platform !== 'linux') return { why: 'only Linux has namespaces', isFixable: false }
  if (process.getuid() !== 0) return { why: 'only root may make namespaces', isFixable: true }
  try {
    await ip('-V')
  } catch (error) {
    return { why: `there is no ip command (package iproute2): ${error.message}`, isFixable: true }
  }
  try {
    await (await Network.open(2)).close()
    return null
  } catch (error) {
    return { why: `this kernel refuses: ${error.stderr ?? error.message}`, isFixable: false }
  }
}

export class Network {
  #prefix = `replic-${process.pid}-${++networks}`
  #namespaces = []
  #bridges = ['br0']
  #cables = 0
  #removeAtExit = () => {
    for (const name of this.#namespaces) tryRemoveNow(name)
  }

  /** A switch, and `hosts` hosts plugged into it. To be closed. */
  static async open(hosts) {
    await removeLeftovers()
    const network = new Network()
    process.on('exit', network.#removeAtExit)
    try {
      await network.#add(network.#switch)
      await network.#addBridge('br0')
      for (let host = 0; host < hosts; host++) await network.#addHost(host)
    } catch (error) {
      await network.close()
      throw error
    }
    return network
  }

  get #switch() {
    return `${this.#prefix}-switch`
  }

  #name(host) {
    return `${this.#prefix}-${host}`
  }

  async #add(name) {
    this.#namespaces.push(name)
    await ip('netns', 'add', name)
    await ip('-n', name, 'link', 'set', 'lo', 'up')
  }

  async #addBridge(name) {
    await ip('-n', this.#switch, 'link', 'add', name, 'type', 'bridge')
    await ip('-n', this.#switch, 'link', 'set', name, 'up')
  }

  async #addHost(host) {
    const name = this.#name(host)
    const port = `p${host}`
    await this.#add(name)
    await this.#wire([this.#switch, port], [name, 'eth0'])
    await ip('-n', this.#switch, 'link', 'set', port, 'master', 'br0', 'up')
    await ip('-n', name, 'addr', 'add', `${this.address(host)}/24`, 'dev', 'eth0')
    await ip('-n', name, 'link', 'set', 'eth0', 'up')
  }

  #wire([one, device], [other, peerDevice]) {
    const peer = ['peer', 'name', peerDevice, 'netns', other]
    return ip('-n', one, 'link', 'add', device, 'type', 'veth', ...peer)
  }

  /** The address of a host at the switch. */
  address(host) {
    return `10.1.0.${host + 1}`
  }

  /** A command that runs `command` on a host. */
  on(host, [program, ...args]) {
    return ['ip', 'netns', 'exec', this.#name(host), program, ...args]
  }

  /** Cuts a host off: its port of the switch goes down. */
  async unplug(host) {
    await ip('-n', this.#switch, 'link', 'set', `p${host}`, 'down')
  }

  async plug(host) {
    await ip('-n', this.#switch, 'link', 'set', `p${host}`, 'up')
  }

  /**
   * Parts the switch: hosts of one group reach each other and nobody else. No link goes down, packets get lost.
   * Each group is a list of hosts; who is in none stays with the first.
   */
  async split(groups) {
    for (const [i, group] of groups.entries()) {
      const bridge = `br${i}`
      if (!this.#bridges.includes(bridge)) {
        await this.#addBridge(bridge)
        this.#bridges.push(bridge)
      }
      for (const host of group) {
        await ip('-n', this.#switch, 'link', 'set', `p${host}`, 'master', bridge)
      }
    }
  }

  /** A cable between two hosts: { address(host), cut(), mend() }, its address at each end. */
  async cable(a, b) {
    const subnet = `10.2.${this.#cables++}`
    const ends = [
      [a, b, `${subnet}.1`],
      [b, a, `${subnet}.2`],
    ]
    await this.#wire([this.#name(a), `c${b}`], [this.#name(b), `c${a}`])
    for (const [host, other, address] of ends) {
      const name = this.#name(host)
      await ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', `c${other}`)
      await ip('-n', name, 'link', 'set', `c${other}`, 'up')
    }
    const set = (state) => ip('-n', this.#name(a), 'link', 'set', `c${b}`, state)
    return {
      address: (host) => ends.find(([end]) => end === host)[2],
      cut: () => set('down'),
      mend: () => set('up'),
    }
  }

  /** Removes all of it. Processes on the hosts should have ended. */
  async close() {
    process.off('exit', this.#removeAtExit)
    for (const name of this.#namespaces) tryRemoveNow(name)
  }
}

function tryRemoveNow(name) {
  try {
    execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' })
  } catch {
    // it was never made, or somebody else has removed it
  }
}

// Of runs that were killed.
async function removeLeftovers() {
  for (const line of (await ip('netns', 'list')).split('\n')) {
    const [name] = line.split(' ')
    const [, pid] = NAME.exec(name) ?? []
    if (pid && !isAlive(Number(pid))) tryRemoveNow(name)
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}
