#!/usr/bin/env python3
"""Rows that a schema cannot store, as a small executable model: python3 stuck.py [seeds] [--without RULE]

Of one key: patches of some columns, with clocks, arrive in any order; retention deletes those that win no cell; what is
refused depends on a column's value, and on the schema, which changes. A peer keeps the row up to date patch by patch, as
src/core/data/merge.c does. It must have, at every moment, what log and schema alone say:

  the row is the fold of the log; there is none if the schema refuses it, or a required column has no value

So peers that have the same patches and the same schema have the same row, whoever came first: patch or schema.
Each RULE can be left out:
  leave  a row that is refused leaves the table
  whole  where the key has no row, the fold of the whole log is tried, and not the patch that has come
  retry  after a change of the schema, keys without a row are tried again
  look   after a change of the schema, rows that are there are looked at again"""
import random
import sys

COLUMNS = "abc"


def fold(log):
    row = {}
    for _, cells in sorted(log, key=lambda patch: patch[0]):
        row.update(cells)
    return row


class Schema:
    def __init__(self, rnd):
        self.required = rnd.choice(("", "", "a"))
        self.refused = {(c, rnd.randint(0, 3)) for c in COLUMNS if rnd.random() < 0.4}
        self.pair = rnd.random() < 0.2  # of two columns together, as in (a || b)

    def takes(self, row):
        if any((c, v) in self.refused for c, v in row.items()):
            return False
        return not (self.pair and row.get("a") == row.get("b"))

    def complete(self, row):
        return all(c in row for c in self.required)


class Peer:
    def __init__(self, schema, without):
        self.schema, self.without = schema, without
        self.log, self.row, self.stuck = [], None, False

    def put(self, row):
        if not self.schema.complete(row):
            self.row, self.stuck = None, False
        elif self.schema.takes(row):
            self.row, self.stuck = row, False
        else:
            self.stuck = True
            if self.without != "leave":
                self.row = None

    def receive(self, patch):
        if patch in self.log:
            return
        newer = set().union(*(cells for clock, cells in self.log if clock > patch[0]))
        late = any(clock > patch[0] for clock, _ in self.log)
        self.log.append(patch)
        cells = {c: v for c, v in patch[1].items() if c not in newer}
        if late and not cells:
            return
        if self.row is not None:
            self.put({**self.row, **cells})
        elif self.without == "whole" and self.stuck:
            self.put(cells)
        else:
            self.put(fold(self.log))

    def prune(self, rnd):
        for patch in sorted(self.log, key=lambda patch: patch[0])[:-1]:
            newer = set().union(*(cells for clock, cells in self.log if clock > patch[0]))
            if set(patch[1]) <= newer and rnd.random() < 0.7:
                self.log.remove(patch)

    def change(self, schema):
        self.schema = schema
        if self.row is None and self.log and self.without != "retry":
            self.put(fold(self.log))
        elif self.row is not None and self.without != "look":
            self.put(fold(self.log))

    def check(self):
        wanted = fold(self.log) if self.log else None
        if wanted is not None and not (self.schema.complete(wanted) and self.schema.takes(wanted)):
            wanted = None
        assert self.row == wanted, (self.row, wanted)
        return self.row


def run(seed, without):
    rnd = random.Random(seed)
    clocks = rnd.sample(range(100), rnd.randint(1, 8))
    patches = [(clock, {c: rnd.randint(0, 3) for c in COLUMNS if rnd.random() < 0.6}) for clock in clocks]
    schemas = [Schema(rnd) for _ in range(4)]
    peers = [Peer(rnd.choice(schemas), without) for _ in range(3)]
    for peer in peers:
        for patch in rnd.sample(patches, len(patches)):
            if rnd.random() < 0.3:
                peer.change(rnd.choice(schemas))
            peer.receive(patch)
            peer.check()
            if rnd.random() < 0.3:
                peer.prune(rnd)
        peer.change(schemas[0])
    rows = [peer.check() for peer in peers]
    if rnd.random() < 0.5:  # a jump: a newcomer gets what the others' logs have left
        newcomer = Peer(schemas[0], without)
        for patch in peers[0].log:
            newcomer.receive(patch)
        rows.append(newcomer.check())
    assert all(row == rows[0] for row in rows), rows
    return any(peer.stuck for peer in peers)


def main():
    args = sys.argv[1:]
    without = args[args.index("--without") + 1] if "--without" in args else None
    seeds = int(args[0]) if args and args[0].isdigit() else 1000
    stuck = 0
    for seed in range(1, seeds + 1):
        try:
            stuck += run(seed, without)
        except AssertionError as error:
            print(f"{seed} seeds, the last one fails: {error}")
            sys.exit(1)
    print(f"{seeds} seeds, {stuck} with a row that is refused in the end")


main()
