#!/usr/bin/env python3
"""A jump from a source that hides patches, as a model: python3 rechecks.py [seeds] [--without RULE]

Honest peers of protocol.py, pruned each in its own way. A newcomer jumps from a liar, which leaves some patches out, perhaps it gets more in the usual way, and only then
meets an honest peer. In the end it
must be equal to that one, and to the cell rule (I2) applied to every patch. Each RULE can be left out:
  recheck  the tables are compared with another peer after the jump
  other    they are compared with another peer than the source
  back     where they differ, the vector goes back to before the jump (else nothing is sent of what is hidden)"""
import random
import sys

from protocol import COLUMNS, Peer, fold


def transfer(source, to, rnd):
    """All that `to` lacks, until nothing moves."""
    while frames := source.frames_for(to.vector, to.staged.get(source.id, {"upto": {}})["upto"], rnd):
        for frame in frames:
            to.receive(frame)


def written(rnd, everything):
    """Two honest peers that have the same: one that is pruned, and one to lie."""
    author, honest, liar = Peer(1, None), Peer(2, None), Peer(3, None)
    for time in range(1000, 1000 + rnd.randint(5, 30)):
        author.write(rnd.randint(1, 4), {c: rnd.randint(0, 99) for c in COLUMNS if rnd.random() < 0.6}, time)
        everything[(1, author.at(1))] = author.log[(1, author.at(1))]
    for peer in (honest, liar):
        transfer(author, peer, rnd)
        if rnd.random() < 0.5:
            peer.prune(time)
    return author, honest, liar


def run(seed, without):
    rnd, everything = random.Random(seed), {}
    author, honest, liar = written(rnd, everything)
    for key in [key for key in liar.log if rnd.random() < 0.3]:
        del liar.log[key]
    liar.floor[1] = liar.at(1)
    newcomer = Peer(4, None)
    before = dict(newcomer.vector)
    transfer(liar, newcomer, rnd)
    for time in range(2000, 2000 + rnd.randint(0, 4)):  # in the usual way
        author.write(rnd.randint(1, 4), {rnd.choice(COLUMNS): time}, time)
        everything[(1, author.at(1))] = author.log[(1, author.at(1))]
        transfer(author, honest, rnd)
        transfer(author, newcomer, rnd)
    other = liar if without == "other" else honest
    if other is liar:
        other.log, other.vector = dict(newcomer.log), dict(newcomer.vector)  # it says what it is asked for
    if without != "recheck" and newcomer.table() != other.table():
        if without != "back":
            newcomer.vector = before
            newcomer.floor.clear()
        transfer(other, newcomer, rnd)
    right = fold(everything.values())
    return newcomer.table() == right and honest.table() == right and newcomer.vector == honest.vector


if __name__ == "__main__":
    without = sys.argv[sys.argv.index("--without") + 1] if "--without" in sys.argv else None
    count = next((int(a) for a in sys.argv[1:] if a.isdigit()), 2000)
    bad = [s for s in range(count) if not run(s, without)]
    print(f"{count} seeds, {len(bad)} diverged" + (f", first: {bad[0]}" if bad else ""))
    sys.exit(bool(bad))
