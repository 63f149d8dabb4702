#!/usr/bin/env python3
"""The lists of linked peers, as a small executable model: python3 lists.py [seeds] [--without RULE]

One side has links that come and go. The other one has a copy of that list, which it needs only while it has other links
itself. Frames are lost, doubled and overtake each other. Changes are numbered, the last few are kept. The one that needs
the list says up to which change it has it; it gets the changes after that, or the whole list where they are not kept.
At every moment the copy is what the list was at the number that goes with it; once nothing changes any more, and frames
arrive, the copy is the list. Each RULE can be left out:
  from   changes are applied only to a copy that has all before them
  past   changes are applied only to a copy that lacks some of them
  whole  the whole list is sent where changes are not kept any more
  known  what is sent follows what the other side says that it has, and not what was sent before"""
import random
import sys

KEPT = 4


class Side:
    def __init__(self, without):
        self.without = without
        self.now, self.changed, self.history = set(), [], [frozenset()]
        self.known, self.sent = None, 0  # what the other side says; None: it needs no list

    def change(self, peer):
        self.now ^= {peer}
        self.changed.append(peer)
        self.history.append(frozenset(self.now))

    def hello(self):
        return ("whole", len(self.changed), frozenset(self.now))

    def ack(self):
        known = self.sent if self.without == "known" else self.known
        n = len(self.changed)
        if self.known is None or known == n:
            return None
        self.sent = n
        if n - known > KEPT and self.without != "whole":
            return self.hello()
        recent = set(self.changed[max(known, n - KEPT):])
        return ("changes", known, n, frozenset((peer, peer in self.now) for peer in recent))


class Copy:
    def __init__(self, without):
        self.without, self.at, self.list, self.needs = without, 0, set(), False

    def receive(self, frame):
        if frame[0] == "whole":
            self.at, self.list = frame[1], set(frame[2])
            return
        _, since, n, changes = frame
        if since > self.at and self.without != "from":
            return
        if n <= self.at and self.without != "past":
            return
        for peer, is_linked in changes:
            (self.list.add if is_linked else self.list.discard)(peer)
        self.at = n


def run(seed, without):
    rnd = random.Random(seed)
    side, copy, there, back = Side(without), Copy(without), [], []
    there.append(side.hello())

    def check():
        assert copy.list == side.history[copy.at], f"at change {copy.at}: {copy.list}, not {set(side.history[copy.at])}"

    def beat():
        frame = side.ack()
        if frame:
            there.append(frame)
        back.append(copy.at if copy.needs else None)

    def deliver(frames, take, loses):
        i = rnd.randrange(len(frames)) if loses else 0
        frame = frames[i] if loses and rnd.random() < 0.1 else frames.pop(i)
        if not loses or rnd.random() < 0.7:
            take(frame)
        check()

    def heard(known):
        side.known = known

    for _ in range(rnd.randint(10, 150)):
        what = rnd.random()
        if what < 0.3:
            side.change(rnd.randint(1, 6))
        elif what < 0.35:
            copy.needs = not copy.needs
        elif what < 0.37:
            there.append(side.hello())
        elif what < 0.6:
            beat()
        elif what < 0.85 and there:
            deliver(there, copy.receive, True)
        elif back:
            deliver(back, heard, True)
    copy.needs = True
    for _ in range(3):
        beat()
        while there:
            deliver(there, copy.receive, False)
        while back:
            deliver(back, heard, False)
    assert copy.list == side.now, f"in the end: {copy.list}, not {side.now}"
    return len(side.changed)


def main():
    args = sys.argv[1:]
    without = args[args.index("--without") + 1] if "--without" in args else None
    seeds = int(args[0]) if args and args[0].isdigit() else 1000
    changes = 0
    for seed in range(1, seeds + 1):
        try:
            changes += run(seed, without)
        except AssertionError as error:
            print(f"{seed} seeds, the last one fails: {error}")
            sys.exit(1)
    print(f"{seeds} seeds, {changes} changes")


main()
