#!/usr/bin/env python3
"""The protocol between peers as a small executable model: python3 protocol.py [seeds] [--without RULE]

Peers hold a vector, a log that is pruned, and what they have staged. Frames travel one by one, are lost,
doubled, and arrive in any order; peers die for ever, and new ones join. At the end the survivors are linked
until nothing moves. They must then be equal to each other, and to the cell rule (I2) applied to every patch
that their common vector covers. After every frame a peer's table must be what its vector says (I1).

A change of the protocol begins here. Each RULE can be left out, to see what it is there for:
  floor   plain frames are sent of a pruned log, too
  age     a jump may rest on pieces that were read after it was made
  all     a jump asks only for what the source has pruned, not for all that its vector covers
  raise   the floors of a jump are not taken over
  passed  a clock that a greater peerId has stamped is not passed by the next one"""
import random
import sys

COLUMNS = "abc"


class Peer:
    def __init__(self, pid, without):
        self.id, self.without = pid, without
        self.vector, self.floor, self.log, self.high, self.passed = {}, {}, {}, 0, False
        self.staged = {}  # source -> {"upto": {origin: sequence}, "age": of the newest piece, "patches": {}}

    def at(self, origin):
        return self.vector.get(origin, 0)

    def age(self):
        return age(self.vector, self.floor)

    def write(self, key, cells, wall):
        self.high = max(wall, self.high + (self.passed and self.without != "passed"))
        self.passed = False
        seq = self.at(self.id) + 1
        self.log[(self.id, seq)] = (key, (self.high, self.id, seq), dict(cells))
        self.vector[self.id] = seq

    def prune(self, older_than):
        newest = {}
        for key, clock, cells in self.log.values():
            for cell in [(key, c) for c in cells] + [(key, None)]:
                newest[cell] = max(newest.get(cell, clock), clock)
        for (origin, seq), (key, clock, cells) in list(self.log.items()):
            wins = newest[(key, None)] == clock or any(newest[(key, c)] == clock for c in cells)
            if clock[0] < older_than and not wins:
                del self.log[(origin, seq)]
                self.floor[origin] = max(self.floor.get(origin, 0), seq)

    def patches(self, origin, after, up_to):
        return {(origin, n): self.log[(origin, n)] for n in range(after + 1, up_to + 1) if (origin, n) in self.log}

    # ---- what a peer sends to one at `vector`, which has staged `upto` from here ----

    def frames_for(self, vector, upto, rnd):
        frames, jump = [], False
        for origin, mine in self.vector.items():
            theirs = vector.get(origin, 0)
            if theirs >= mine:
                continue
            if theirs >= self.floor.get(origin, 0) or self.without == "floor":
                frames.append(("patches", origin, theirs, *self.slice(origin, theirs, mine, rnd)))
                continue
            jump = True
            after = max(theirs, upto.get(origin, 0))
            if after < mine:
                frames.append(("stage", self.id, self.age(), origin, after, *self.slice(origin, after, mine, rnd)))
        if jump:
            frames.append(("jump", self.id, dict(self.vector), dict(self.floor)))
        return frames

    def slice(self, origin, after, mine, rnd):
        end = rnd.randint(after + 1, mine) if rnd.random() < 0.3 else mine
        return end, self.patches(origin, after, end)

    # ---- what it makes of a frame ----

    def receive(self, frame):
        kind = frame[0]
        if kind == "patches":
            _, origin, after, end, new = frame
            if self.at(origin) >= after:  # else it is early: ask again
                self.apply(new, {origin: end})
        elif kind == "stage":
            _, source, age, origin, after, end, new = frame
            stage = self.staged.setdefault(source, {"upto": {}, "age": 0, "patches": {}})
            if end > self.at(origin) and after <= max(self.at(origin), stage["upto"].get(origin, 0)):
                stage["upto"][origin] = max(end, stage["upto"].get(origin, 0))
                stage["age"] = max(age, stage["age"])
                stage["patches"].update(new)
        else:
            self.jump(*frame[1:])

    def jump(self, source, vector, floors):
        stage = self.staged.get(source, {"upto": {}, "age": 0, "patches": {}})
        lacks = [o for o, s in vector.items() if s > self.at(o)]
        covered = all(max(self.at(o), stage["upto"].get(o, 0)) >= s for o, s in vector.items())
        if self.without == "all":
            covered = all(max(self.at(o), stage["upto"].get(o, 0)) >= vector[o] for o in lacks if self.at(o) < floors.get(o, 0))
        newer = age(vector, floors) >= stage["age"] or self.without == "age"
        if not lacks or not covered or not newer:
            return
        for o in lacks:
            if self.without != "raise":
                self.floor[o] = max(self.floor.get(o, 0), floors.get(o, 0))
        patches = {k: p for k, p in stage["patches"].items() if k[1] <= vector.get(k[0], 0)}
        self.staged.clear()
        self.apply(patches, {o: vector[o] for o in lacks})

    def apply(self, new, up_to):
        for (o, n), patch in new.items():
            if n > self.at(o):
                self.log.setdefault((o, n), patch)
                clock = patch[1][0]
                if clock >= self.high:
                    self.passed = o > self.id or clock == self.high and self.passed
                    self.high = clock
        for o, s in up_to.items():
            self.vector[o] = max(s, self.at(o))

    def table(self):
        return fold(self.log.values())


def age(vector, floors):
    """Grows with everything that a peer applies or prunes: says which of two of its frames is the older one."""
    return sum(vector.values()) + sum(floors.values())


def fold(patches):
    rows = {}
    for key, clock, cells in patches:
        row = rows.setdefault(key, {})
        for c, v in cells.items():
            if c not in row or row[c][0] < clock:
                row[c] = (clock, v)
    return {k: {c: v for c, (_, v) in r.items()} for k, r in rows.items()}


def run(seed, without):
    rnd = random.Random(seed)
    peers = [Peer(i + 1, without) for i in range(rnd.randint(2, 6))]
    everything, way, time, joined = {}, [], 1000, 100

    def right(p):
        return p.table() == fold(patch for (o, n), patch in everything.items() if n <= p.at(o))

    for _ in range(rnd.randint(50, 300)):
        time += rnd.choice((0, 1, 1, 5, 40))
        p, action = rnd.choice(peers), rnd.random()
        if action < 0.30:
            cells = {c: rnd.randint(0, 99) for c in COLUMNS if rnd.random() < 0.5}
            p.write(rnd.randint(1, 6), cells, time + rnd.choice((-20, 0, 0, 20)))
            everything[(p.id, p.at(p.id))] = p.log[(p.id, p.at(p.id))]
            if p.log[(p.id, p.at(p.id))][1] != max(clock for _, clock, _ in p.log.values()):
                return False  # what is written comes after all that its writer has seen
        elif action < 0.45:
            p.prune(time - rnd.choice((0, 10, 100)))
        elif action < 0.65 and len(peers) > 1:  # q has told p where it stands; p's answer is on its way
            q = rnd.choice([x for x in peers if x is not p])
            frames = p.frames_for(q.vector, q.staged.get(p.id, {"upto": {}})["upto"], rnd)
            way += [(q, f) for f in frames if rnd.random() < 0.9]
        elif action < 0.95 and way:
            for _ in range(rnd.randint(1, 6)):
                if way:
                    i = 0 if rnd.random() < 0.6 else rnd.randrange(len(way))
                    q, frame = way[i] if rnd.random() < 0.1 else way.pop(i)
                    q.receive(frame)
                    if not right(q):
                        return False
        elif action < 0.97 and len(peers) > 2:
            peers.remove(p)  # gone for ever
        elif len(peers) < 7:
            joined += 1
            peers.append(Peer(joined, without))
    moved = True
    while moved:
        moved = False
        for p in peers:
            for q in peers:
                frames = p.frames_for(q.vector, q.staged.get(p.id, {"upto": {}})["upto"], rnd) if p is not q else []
                for f in frames:
                    q.receive(f)
                    moved = True
    return all(p.vector == peers[0].vector and p.table() == peers[0].table() and right(p) for p in peers)


if __name__ == "__main__":
    without = sys.argv[sys.argv.index("--without") + 1] if "--without" in sys.argv else None
    count = next((int(a) for a in sys.argv[1:] if a.isdigit()), 2000)
    bad = [s for s in range(count) if not run(s, without)]
    print(f"{count} seeds, {len(bad)} diverged" + (f", first: {bad[0]}" if bad else ""))
    sys.exit(bool(bad))
