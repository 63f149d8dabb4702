#!/usr/bin/env python3
"""How histories are told apart, as a small executable model: python3 forks.py [seeds] [--without RULE]

A file is copied together with its -replic, and both copies go on under one peerId. Their patches have the same
sequences, and may have the same clocks: a clock is a millisecond. So each opening of a file draws a number, its
epoch, and every peer knows for each patch, pruned or not, in which epoch it was issued. A frame says it of the
patch that it follows and of all that it brings; what does not fit is a fork.

After every frame the patches that a peer has of an origin must be one history: each follows the one that it
followed where it was issued. Where nothing was copied, nothing may be refused. Each RULE can be left out:
  epoch    patches are told apart by their clocks alone
  changes  a frame names the epoch of its first patch only, not where in it others begin
  pruned   a frame names the epochs of the patches that it brings, not of those that were pruned between them"""
import random
import sys


class Peer:
    def __init__(self, pid, rnd, without):
        self.id, self.rnd, self.without = pid, rnd, without
        self.logs = {}  # origin -> [[uid, clock, epoch, pruned]]
        self.open()

    def open(self):
        self.epoch = self.rnd.getrandbits(32)

    def log(self, origin):
        return self.logs.setdefault(origin, [])

    def write(self, uid, wall):
        log = self.log(self.id)
        last = log[-1] if log else [0, 0, 0, False]
        clock = max(wall, last[1] + (last[2] != self.epoch))
        log.append([uid, clock, self.epoch, False])

    def copy(self):
        other = Peer(self.id, self.rnd, self.without)
        other.logs = {o: [list(p) for p in log] for o, log in self.logs.items()}
        self.open()
        return other

    def prune(self):
        for log in self.logs.values():
            for patch in log[:-1]:
                patch[3] |= self.rnd.random() < 0.3

    def frame(self, origin, after):
        log = self.log(origin)
        end = self.rnd.randint(after + 1, len(log))
        at = log[after - 1] if after else [0, 0, 0, True]
        brought, epoch, changes = log[after:end], at[2], []
        for n, patch in enumerate(brought):
            if patch[2] != epoch and not (self.without == "pruned" and patch[3]):
                epoch = patch[2]
                changes.append((n, epoch))
        if self.without == "changes":
            changes = changes[:1]
        return origin, after, 0 if at[3] else at[1], at[2], changes, [list(p) for p in brought]

    def receive(self, frame):
        """False: a fork."""
        origin, after, clock, epoch, changes, brought = frame
        log = self.log(origin)
        if after > len(log) or after + len(brought) <= len(log):
            return True
        for n, patch in enumerate(brought):  # the epochs as the frame tells them
            epoch = dict(changes).get(n, epoch)
            patch[2] = epoch
        if log:
            mine, same = log[-1], ([0, clock, frame[3], not clock] if after == len(log) else brought[len(log) - after - 1])
            if not mine[3] and not same[3] and mine[1] != same[1]:
                return False
            if self.without != "epoch" and mine[2] != same[2]:
                return False
        log.extend(brought[len(log) - after :])
        return True


def run(seed, without):
    rnd = random.Random(seed)
    peers = [Peer(i + 1, rnd, without) for i in range(rnd.randint(2, 5))]
    copies, parent, wall, uid = rnd.choice((0, 0, 1, 3)), {}, 1000, 0
    may_copy = copies > 0
    for _ in range(rnd.randint(50, 300)):
        wall += rnd.random() < 0.05
        p, action = rnd.choice(peers), rnd.random()
        if action < 0.3:
            uid += 1
            parent[uid] = p.log(p.id)[-1][0] if p.log(p.id) else 0
            p.write(uid, wall)
        elif action < 0.4:
            p.open()
        elif action < 0.45:
            p.prune()
        elif action < 0.5 and copies and p.log(p.id):
            copies -= 1
            peers.append(p.copy())
        elif action > 0.5:
            q = rnd.choice(peers)
            for origin in list(p.logs):
                after = min(len(q.log(origin)), rnd.choice((len(q.log(origin)), rnd.randint(0, len(p.log(origin))))))
                if q.id == origin or after >= len(p.log(origin)):
                    continue
                if not q.receive(p.frame(origin, after)) and not may_copy:
                    return False
                uids = [patch[0] for patch in q.log(origin)]
                if any(parent[b] != a for a, b in zip([0] + uids, uids)):
                    return False
    return True


if __name__ == "__main__":
    without = sys.argv[sys.argv.index("--without") + 1] if "--without" in sys.argv else None
    count = next((int(a) for a in sys.argv[1:] if a.isdigit()), 2000)
    bad = [s for s in range(count) if not run(s, without)]
    print(f"{count} seeds, {len(bad)} failed" + (f", first: {bad[0]}" if bad else ""))
    sys.exit(bool(bad))
