#!/usr/bin/env python3
"""A jump that is merged in slices, as a model: python3 slices.py [seeds] [--without RULE]

The peers of protocol.py, except that a jump is merged a few patches at a time, and that the peer goes on with
everything else in between: it writes, gets what others have written, prunes, serves others, starts anew. A table is the fold
of its log at any time, so what must hold is that of protocol.py for all whose jump has ended: a table is what the
vector says, and what is written comes after all that its writer has seen. RULES that can be left out:
  last   the vector moves with the first slice, not with the last one
  waits  retention goes on meanwhile
  knows  who starts anew knows the clocks up to its vector, and not those that the jump goes up to"""
import random
import sys

from protocol import COLUMNS, Peer, fold


class Slicing(Peer):
    def __init__(self, pid, without):
        super().__init__(pid, without)
        self.merging = None  # {"patches": [those that are left], "to": {origin: sequence}, "clock": the latest}

    def jumps(self, origin):
        return self.merging and origin in self.merging["to"]

    def prune(self, older_than):
        if not self.merging or self.without == "waits":
            super().prune(older_than)

    def receive(self, frame):
        if frame[0] == "patches":
            if not self.jumps(frame[1]):  # else as if it were early
                super().receive(frame)
        elif not self.merging:  # else as if it were lost
            super().receive(frame)

    # What protocol.py does at once begins here.
    def jump(self, source, vector, floors):
        self.is_jumping = True
        super().jump(source, vector, floors)
        self.is_jumping = False

    is_jumping = False

    def apply(self, new, up_to):
        if not self.is_jumping:
            super().apply(new, up_to)
            return
        clock = max((clock[0] for _, clock, _ in new.values()), default=0)
        self.merging = {"patches": sorted(new.items()), "to": up_to, "clock": clock}
        if self.without == "last":
            self.vector.update(up_to)

    def merge_slice(self, n):
        m = self.merging
        for (origin, sequence), patch in m["patches"][:n]:
            self.log.setdefault((origin, sequence), patch)
            self.high = max(self.high, patch[1][0])
            self.passed = True
        m["patches"] = m["patches"][n:]
        if not m["patches"]:
            self.merging = None
            super().apply({}, m["to"])

    def start_anew(self):
        self.high = max((clock[0] for (o, n), (_, clock, _) in self.log.items() if n <= self.at(o)), default=0)
        if self.merging and self.without != "knows":
            self.high = max(self.high, self.merging["clock"])
        self.passed = True


def run(seed, without):
    rnd = random.Random(seed)
    peers = [Slicing(i + 1, without) for i in range(rnd.randint(3, 5))]
    everything, time, joined, slow = {}, 1000, 100, rnd.random() < 0.5

    def right(p):
        return p.merging or p.table() == fold(patch for (o, n), patch in everything.items() if n <= p.at(o))

    def send(p, q):
        for frame in p.frames_for(q.vector, q.staged.get(p.id, {"upto": {}})["upto"], rnd):
            q.receive(frame)
        return right(q)

    def write(p):
        cells = {c: rnd.randint(0, 99) for c in COLUMNS if rnd.random() < 0.5}
        p.write(rnd.randint(1, 3), cells, time + rnd.choice((-100, -20, 0, 0, 20)))
        everything[(p.id, p.at(p.id))] = p.log[(p.id, p.at(p.id))]
        return p.log[(p.id, p.at(p.id))][1] == max(clock for _, clock, _ in p.log.values())

    for _ in range(rnd.randint(50, 200)):
        time += rnd.choice((0, 1, 1, 5))
        p, action = rnd.choice(peers), rnd.random()
        if p.merging and rnd.random() < (0.1 if slow else 0.4):
            p.merge_slice(rnd.randint(1, 3))
            if rnd.random() < 0.4:
                p.start_anew()
                if not write(p):
                    return False
            elif rnd.random() < 0.4:
                p.prune(time + 100)
        elif action < 0.35:
            if not write(p):
                return False
        elif action < 0.55:
            p.prune(time - rnd.choice((-30, 0, 10, 100)))
        elif action < 0.6:
            p.start_anew()
        elif action < 0.65 and len(peers) < 6:
            joined += 1
            peers.append(Slicing(joined, without))
        else:
            q = rnd.choice([x for x in peers if x is not p])
            if not send(p, q):
                return False
        if not right(p):
            return False
    moved = True
    while moved:
        before = [(dict(p.vector), len(p.log), p.merging) for p in peers]
        for p in peers:
            while p.merging:
                p.merge_slice(3)
            if not all(send(p, q) for q in peers if q is not p):
                return False
        moved = before != [(dict(p.vector), len(p.log), p.merging) for p in peers]
    return all(p.vector == peers[0].vector and p.table() == peers[0].table() and right(p) for p in peers)


if __name__ == "__main__":
    without = sys.argv[sys.argv.index("--without") + 1] if "--without" in sys.argv else None
    count = next((int(a) for a in sys.argv[1:] if a.isdigit()), 2000)
    bad = [s for s in range(count) if not run(s, without)]
    print(f"{count} seeds, {len(bad)} diverged" + (f", first: {bad[0]}" if bad else ""))
    sys.exit(bool(bad))
