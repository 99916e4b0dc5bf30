"""Many runs of one strategy side by side, each in a scope of its own, and the answers they vote for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple

from researcher.protocols import Strategy
from researcher.strategies.scoped import Scopes
from researcher.strategies.votes import Ballot, Ballots, Tally
from researcher.types import Answer, Work
from researcher.views import Plan, View


class Round(NamedTuple):
    """What all runs together want next."""

    start: tuple[Work, ...]
    cancel: tuple[str, ...]


class Runs:
    """Runs numbered in the order they begin; `ended` has the last plan of each that has one.

    A run is asked again when something of it changed, and when slots are free and it had taken all that it was
    offered; the first run comes first. So a plan costs what is new, and to lose the memo changes nothing: a run
    that was passed over would have planned nothing.
    """

    def __init__(self, name: str, stop: Callable[[Tally[Answer]], bool] | None = None) -> None:
        self.scopes = Scopes(name)
        self.ended: dict[int, Plan] = {}
        self.ballots = Ballots[Answer](stop)
        self._hungry = _Queue()
        self._acted: set[int] = set()
        self._seen = (-1, True)

    @classmethod
    def of(cls, view: View, name: str, stop: Callable[[Tally[Answer]], bool] | None = None) -> Runs:
        """The runs of the view's graph, kept in its memo under `name`."""
        runs = view.memo.get(name)
        if not isinstance(runs, cls):
            runs = view.memo[name] = cls(name, stop)
        return runs

    def plan(self, view: View, strategy: Strategy, n: int) -> Round:
        """Ask the runs that may have something new to say; begin others, up to `n`, while slots are free."""
        start: list[Work] = []
        cancel: list[str] = []
        due = self._due(view)
        begun = self.ballots.opened
        while (number := self._next(due, view.free - len(start))) is not None:
            self._ask(view, strategy, number, start, cancel)
        for number in range(begun, n if view.budget.spendable else begun):
            if len(start) >= view.free:
                break
            self._ask(view, strategy, number, start, cancel)
        return Round(tuple(start), tuple(cancel))

    def _due(self, view: View) -> _Queue:
        """The runs that changed; all that are open, where the budget came to its end."""
        changed = {int(label) for label in self.scopes.update(view)}
        known = self.ballots.opened
        self._open(max(changed, default=-1))
        changed.update(range(known, self.ballots.opened))  # also those that ended without a thread of their own
        seen = view.graph.seq, view.budget.spendable
        if seen[0] == self._seen[0]:  # asked twice about one graph: the same plan again
            changed |= self._acted
        if seen[1] is not self._seen[1]:
            changed.update(number for number in range(self.ballots.opened) if number not in self.ended)
        self._seen = seen
        self._acted.clear()
        return _Queue(changed)

    def _open(self, number: int) -> None:
        while self.ballots.opened <= number:
            self.ballots.open()

    def _next(self, due: _Queue, free: int) -> int | None:
        """The first run to ask: of those that are due, and where slots are free of the hungry ones."""
        first = [number for number in (due.first, self._hungry.first if free > 0 else None) if number is not None]
        if not first:
            return None
        due.remove(min(first))
        self._hungry.remove(min(first))
        return min(first)

    def _ask(self, view: View, strategy: Strategy, number: int, start: list[Work], cancel: list[str]) -> None:
        """Take in one run's plan: what it starts and cancels, or how it ended."""
        plan = self.ended.get(number)
        if plan is not None:
            cancel.extend(key for key in plan.cancel if key in view.in_flight)
            return
        free = view.free - len(start)
        plan = self.scopes.plan(view, str(number), strategy, free=free)
        cancel.extend(plan.cancel)
        if plan.answer is not None or plan.failure is not None:
            self._end(number, plan)
        else:
            start.extend(plan.start)
            if number >= self.ballots.opened:  # it has begun when its first thread has
                return
            if len(plan.start) >= free:
                self._hungry.add(number)
        if plan.start or plan.cancel:
            self._acted.add(number)

    def _end(self, number: int, plan: Plan) -> None:
        self._open(number)
        self.ended[number] = plan
        answer = plan.answer
        self.ballots.close(number, None if answer is None else Ballot(answer.canonical, 1.0, answer))


class _Queue:
    """Numbers, each once, the smallest first."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._heap = sorted(numbers)
        self._members = set(self._heap)

    def add(self, number: int) -> None:
        if number not in self._members:
            self._members.add(number)
            heapq.heappush(self._heap, number)

    def remove(self, number: int) -> None:
        self._members.discard(number)

    @property
    def first(self) -> int | None:
        while self._heap and self._heap[0] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None
