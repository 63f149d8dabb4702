// Where a scenario is played: it makes what that needs, and removes all of it afterwards.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Cluster } from './cluster.js'
import { Network } from './netns.js'

export class Stage {
  #undo = []
  #fail
  #failed = new Promise((_, reject) => {
    this.#fail = reject
  })

  constructor(seed) {
    this.seed = seed
    this.#failed.catch(() => {}) // seen by play()
  }

  /** Plays a scenario (see scenarios.js); rejects as soon as anything fails, whatever it waits for. */
  play(scenario, settings) {
    return Promise.race([scenario(this, settings), this.#failed])
  }

  /** A directory of its own. */
  dir() {
    const dir = mkdtempSync(join(tmpdir(), 'replic-chaos-'))
    this.#undo.push(() => rmSync(dir, { recursive: true, force: true }))
    return dir
  }

  /** A small file system: { dir, resize(bytes) }. Only root may mount one. */
  fileSystem(bytes) {
    const dir = this.dir()
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'none', dir])
    this.#undo.push(() => execFileSync('umount', ['--lazy', dir]))
    const resize = (size) => execFileSync('mount', ['-o', `remount,size=${size}`, dir])
    return { dir, resize }
  }

  async network(hosts) {
    const network = await Network.open(hosts)
    this.#undo.push(() => network.close())
    return network
  }

  /** Peers that run. `settings`: those of a Cluster, without dir and seed. */
  async cluster(settings) {
    const cluster = new Cluster({ dir: this.dir(), seed: this.seed, ...settings })
    cluster.on('failed', this.#fail)
    this.#undo.push(() => cluster.end())
    await cluster.start()
    return cluster
  }

  async end() {
    for (const undo of this.#undo.splice(0).reverse()) await undo()
  }
}
