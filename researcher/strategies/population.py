"""A population made anew in rounds, as a fold of the graph: who can begin, as soon as its own parents have ended."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple

from researcher.strategies.base import seed_of
from researcher.strategies.revision import is_right
from researcher.views import ThreadInfo, View

Member = tuple[int, int]
"""Round and place in the population, from 0."""


def key_of(name: str, member: Member) -> str:
    """The key of a member's thread."""
    return f"{name}/{member[0]}/{member[1]}"


class Draft:
    """A member to be, and the parents found for it so far; `order` is the order in which it looks at the others."""

    __slots__ = ("looking_at", "member", "order", "parents")

    def __init__(self, member: Member, order: Iterator[int]) -> None:
        self.member, self.order = member, order
        self.parents: list[ThreadInfo] = []
        self.looking_at: int | None = next(order)


class Ready(NamedTuple):
    """A member that can begin, with what it reads."""

    member: Member
    parents: list[ThreadInfo]


class Rounds:
    """All rounds: who has ended, who can begin (`ready`, in order) and who waits for whom.

    `right`: the members that the task's verifier found right. A member's key is `name/round/place`.
    """

    def __init__(self, name: str, seed: int, *, size: int, rounds: int, k: int) -> None:
        self._name, self._seed, self._size, self._rounds, self._k = name, seed, size, rounds, k
        self._waiting: dict[Member, list[Draft]] = {}
        self.ready = [Ready((0, place), []) for place in range(size)]
        self.ended: dict[Member, ThreadInfo] = {}
        self.started: set[Member] = set()
        self.right: list[ThreadInfo] = []
        self.opened = 0
        self.seq = 0

    @classmethod
    def of(cls, view: View, name: str, *, size: int, rounds: int, k: int) -> Rounds:
        """The rounds of the view's graph, kept in its memo under `name`."""
        known = view.memo.get(name)
        if not isinstance(known, cls):
            known = view.memo[name] = cls(name, view.seed, size=size, rounds=rounds, k=k)
        for info in view.graph.changes(known.seq):
            if info.key.startswith(f"{name}/"):
                known._put(info)
        known.seq = view.graph.seq
        return known

    def _put(self, info: ThreadInfo) -> None:
        _, number, place = info.key.split("/")
        member = int(number), int(place)
        self.started.add(member)
        at = bisect_left(self.ready, member, key=lambda ready: ready.member)
        if at < len(self.ready) and self.ready[at].member == member:
            del self.ready[at]
        if info.outcome is None:
            return
        self.ended[member] = info
        if is_right(info):
            self.right.append(info)
        while self.opened <= member[0] and self.opened + 1 < self._rounds:
            self.opened += 1
            for each in range(self._size):
                self._seek(Draft((self.opened, each), self._order((self.opened, each))))
        for draft in self._waiting.pop(member, ()):
            self._seek(draft)

    def _order(self, member: Member) -> Iterator[int]:
        """A draw of k parents, and then of the others, who stand in for parents that failed."""
        rng = random.Random(seed_of(self._seed, f"parents of {key_of(self._name, member)}"))
        drawn = rng.sample(range(self._size), self._k)
        yield from drawn
        others = sorted(set(range(self._size)).difference(drawn))
        rng.shuffle(others)
        yield from others

    def _seek(self, draft: Draft) -> None:
        """Look on, until the draft has its parents or must wait for one; without any it can never begin."""
        before = draft.member[0] - 1
        while draft.looking_at is not None and len(draft.parents) < self._k:
            parent = self.ended.get((before, draft.looking_at))
            if parent is None:
                self._waiting.setdefault((before, draft.looking_at), []).append(draft)
                return
            if parent.answer is not None:
                draft.parents.append(parent)
            draft.looking_at = next(draft.order, None)
        if draft.parents and draft.member not in self.started:
            insort(self.ready, Ready(draft.member, draft.parents), key=lambda ready: ready.member)
