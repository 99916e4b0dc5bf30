"""Counting votes as they come in, and knowing when more of them cannot change the result.

A vote costs O(log votes), whoever leads is at hand, and what is counted does not depend on the order in which the
votes came: ties go to the class submitted first, and weights are summed as whole numbers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from researcher.views import ThreadInfo, View

T = TypeVar("T")

UNIT = 1 << 40
"""Weights are whole multiples of 1/UNIT: a sum of floats would depend on the order of its terms."""


class _Class(Generic[T]):
    __slots__ = ("canonical", "first", "members", "weight")

    def __init__(self, canonical: str, first: int) -> None:
        self.canonical, self.first, self.weight = canonical, first, 0
        self.members: list[tuple[int, T]] = []

    @property
    def rank(self) -> tuple[int, int]:
        return -self.weight, self.first


class Tally(Generic[T]):
    """Answer classes by weight, the largest first; of equal ones the first submitted."""

    def __init__(self) -> None:
        self._classes: dict[str, _Class[T]] = {}
        self._heap: list[tuple[tuple[int, int], str]] = []  # ranks as they were; stale ones are passed over
        self._weight = 0
        self.votes = 0

    def add(self, canonical: str, order: int, item: T, weight: float = 1.0) -> None:
        """Count a vote; `order` is its place among all that were submitted."""
        known = self._classes.get(canonical)
        if known is None:
            known = self._classes[canonical] = _Class(canonical, order)
        units = round(weight * UNIT)
        known.members.append((order, item))
        known.first = min(known.first, order)
        known.weight += units
        self._weight += units
        self.votes += 1
        heapq.heappush(self._heap, (known.rank, canonical))

    def _top(self) -> _Class[T] | None:
        while self._heap:
            rank, canonical = self._heap[0]
            known = self._classes[canonical]
            if known.rank == rank:
                return known
            heapq.heappop(self._heap)
        return None

    def _units(self) -> tuple[int, int]:
        """The weights of the two largest classes."""
        first = self._top()
        if first is None:
            return 0, 0
        entry = heapq.heappop(self._heap)
        second = self._top()
        heapq.heappush(self._heap, entry)
        return first.weight, 0 if second is None else second.weight

    @property
    def leader(self) -> list[T]:
        """Who voted for the largest class, in submission order; empty if nobody voted."""
        top = self._top()
        return [] if top is None else [item for _, item in sorted(top.members, key=lambda member: member[0])]

    @property
    def top_two(self) -> tuple[float, float]:
        """The weights of the two largest classes: their votes, where every vote weighs 1."""
        first, second = self._units()
        return first / UNIT, second / UNIT

    @property
    def share(self) -> float:
        """The largest class's share of all weight; 0 where there is none."""
        return self._units()[0] / self._weight if self._weight else 0.0

    def decided(self, pending: int, most: float = 1.0) -> bool:
        """Whether no outcome of the pending votes, of weight `most` at most, can change the winner."""
        first, second = self._units()
        return bool(self.votes) and decided(first, second, pending * round(most * UNIT))


def tally(threads: Iterable[ThreadInfo]) -> Tally[ThreadInfo]:
    """The votes of these threads; those without an answer do not vote."""
    votes = Tally[ThreadInfo]()
    for thread in threads:
        if thread.canonical is not None and thread.outcome is not None:
            votes.add(thread.canonical, thread.order, thread)
    return votes


def beta_confidence(first: int, second: int) -> float:
    """P(the leading class is the more frequent of the two), uniform prior; first >= second votes.

    1 - sum_{k <= second} C(first+second+1, k) / 2^(first+second+1): Aggarwal et al. 2023, adaptive consistency. The
    terms are summed from the largest down, until they add nothing: of the order of sqrt(votes) of them.
    """
    n = first + second + 1
    term = math.exp(math.lgamma(n + 1) - math.lgamma(second + 1) - math.lgamma(n - second + 1) - n * math.log(2))
    below = 0.0
    for k in range(second, -1, -1):
        if below + term == below:
            break
        below += term
        term *= k / (n - k + 1)  # C(n, k - 1) from C(n, k)
    return 1.0 - below


def decided(first: float, second: float, pending: float) -> bool:
    """Whether no outcome of the pending votes can change the winner; agrees with the full vote always."""
    return first - second > pending


class Ballot(NamedTuple, Generic[T]):
    """A vote: its class, its weight, and who gave it."""

    canonical: str
    weight: float
    item: T


class Ballots(Generic[T]):
    """Votes by the place at which they were submitted: opened when somebody is asked, closed when he is done.

    `prefix` counts those before the first that is still out, one after the other, up to the first at which `stop`
    holds. What it comes to depends on the votes alone; a rule that looked at whoever was done first would favour
    quick answers over right ones.
    """

    def __init__(self, stop: Callable[[Tally[T]], bool] | None = None) -> None:
        self.tally = Tally[T]()
        self.prefix = Tally[T]()
        self.stopped = False
        self.opened = 0
        self._closed = 0
        self._stop = stop
        self._ballots: list[Ballot[T] | None] = []
        self._done: list[bool] = []
        self._next = 0

    @property
    def pending(self) -> int:
        """How many are out."""
        return self.opened - self._closed

    @property
    def settled(self) -> int:
        """How many of the first places are done, one after the other."""
        return self._next

    def open(self) -> int:
        """The place of the next one that is asked."""
        self._ballots.append(None)
        self._done.append(False)
        self.opened += 1
        return self.opened - 1

    def close(self, place: int, ballot: Ballot[T] | None) -> None:
        """Take in a vote, or that there is none."""
        self._ballots[place], self._done[place] = ballot, True
        self._closed += 1
        if ballot is not None:
            self.tally.add(ballot.canonical, place, ballot.item, ballot.weight)
        while not self.stopped and self._next < self.opened and self._done[self._next]:
            self._advance()

    def _advance(self) -> None:
        ballot = self._ballots[self._next]
        self._next += 1
        if ballot is not None:
            self.prefix.add(ballot.canonical, self._next - 1, ballot.item, ballot.weight)
        self.stopped = self._stop is not None and self.prefix.votes > 0 and self._stop(self.prefix)

    def cast(self) -> list[Ballot[T]]:
        """The votes that came in, in submission order."""
        return [ballot for ballot in self._ballots if ballot is not None]


class ThreadBallots(Ballots[ThreadInfo]):
    """The votes of threads, taken in as they are; `weigh` says what an answer weighs, None: it does not vote.

    `out` are the threads that run, by key; `weightless` counts the answers that do not vote.
    """

    def __init__(
        self,
        weigh: Callable[[ThreadInfo], float | None] = lambda _: 1.0,
        stop: Callable[[Tally[ThreadInfo]], bool] | None = None,
    ) -> None:
        super().__init__(stop)
        self.out: dict[str, int] = {}
        self.weightless = 0
        self._weigh = weigh
        self._ended: set[str] = set()

    def take(self, thread: ThreadInfo) -> bool:
        """Take in a thread as it is now; False where it has voted and runs again, so that all must be counted anew."""
        key = thread.key
        if key in self._ended:
            return thread.outcome is not None
        if key not in self.out:
            self.out[key] = self.open()
        if thread.outcome is not None:
            self._ended.add(key)
            self.end(self.out.pop(key), thread)
        return True

    def end(self, place: int, thread: ThreadInfo) -> None:
        """Take in a thread that has ended."""
        ballot = None
        if thread.canonical is not None:
            weight = self._weigh(thread)
            if weight is None:
                self.weightless += 1
            else:
                ballot = Ballot(thread.canonical, weight, thread)
        self.close(place, ballot)


class Polls:
    """The votes of a graph's threads by group, as a fold kept in the view's memo. `seq`: the event it is right for."""

    def __init__(self, make: Callable[[], ThreadBallots]) -> None:
        self.groups: dict[str, ThreadBallots] = {}
        self.seq = 0
        self._make = make

    @classmethod
    def of(cls, view: View, name: str, make: Callable[[], ThreadBallots] = ThreadBallots) -> Polls:
        """The votes up to now, kept in the memo under `name`; `make` gives a group's ballots."""
        polls = view.memo.get(name)
        if not isinstance(polls, cls):
            polls = view.memo[name] = cls(make)
        if not polls._update(view):
            polls = view.memo[name] = cls(make)
            polls._update(view)
        return polls

    def _update(self, view: View) -> bool:
        for thread in view.graph.changes(self.seq):
            if not self.group(thread.work.group).take(thread):
                return False
        self.seq = view.graph.seq
        return True

    def group(self, name: str) -> ThreadBallots:
        """The ballots of a group; empty where it has no threads."""
        known = self.groups.get(name)
        if known is None:
            known = self.groups[name] = self._make()
        return known
