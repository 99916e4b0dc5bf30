"""Answers with scores, to choose among: whole ones, or solutions written in steps that are scored one by one."""

from __future__ import annotations

from typing import NamedTuple, Self

from researcher.strategies.revision import is_right, value
from researcher.strategies.steps import Aggregate, Node, StepTree
from researcher.strategies.votes import Ballot, Ballots
from researcher.views import ThreadInfo, View

MOST = 1.0
"""The score that none exceeds."""


class Candidate(NamedTuple):
    """An answer, its score and its place among all that were begun; of a solution in steps its last one is `info`."""

    place: int
    score: float
    info: ThreadInfo
    body: str


class Candidates:
    """The candidates of one strategy, as a fold of the graph; the number in a thread's key is its candidate's place.

    `right`: the first whose answer the task's verifier found right; `best`: the first of the best score; `unscored`:
    how many answers have none; `waiting`: solutions whose next step can be sampled, by place.
    """

    def __init__(self, name: str, scorer: str) -> None:
        self.ballots = Ballots[Candidate]()
        self.right: Candidate | None = None
        self.best: Candidate | None = None
        self.unscored = 0
        self.waiting: dict[int, Node] = {}
        self._name = f"{name}/"
        self._scorer = scorer
        self._seq = 0

    @classmethod
    def of(cls, view: View, memo: str, *args: object) -> Self:
        """The candidates of the view's graph, kept in its memo."""
        known = view.memo.get(memo)
        if not isinstance(known, cls):
            known = view.memo[memo] = cls(*args)  # type: ignore[arg-type]
        for thread in view.graph.changes(known._seq):
            if thread.key.startswith(known._name):
                known._put(thread)
        known._seq = view.graph.seq
        return known

    @property
    def running(self) -> int:
        """How many are being written."""
        return self.ballots.pending - len(self.waiting)

    def decided(self, pending: int, *, weighted: bool) -> bool:
        """Whether the candidates that may still come cannot change the choice."""
        if weighted:
            return self.ballots.tally.decided(pending, MOST)
        return self.best is not None and self.best.score >= MOST and self.ballots.settled > self.best.place

    def chosen(self, *, weighted: bool) -> list[Candidate]:
        """The candidates that gave the chosen answer, the best score first; empty if there is none."""
        if self.best is None:
            return []
        won = self.ballots.tally.leader[0] if weighted else self.best
        same = [ballot.item for ballot in self.ballots.cast() if ballot.canonical == won.info.canonical]
        return sorted(same, key=lambda candidate: (-candidate.score, candidate.place))

    def _open(self, thread: ThreadInfo) -> int:
        place = int(thread.key[len(self._name) :].partition("/")[0])
        while self.ballots.opened <= place:
            self.ballots.open()
        return place

    def _put(self, thread: ThreadInfo) -> None:
        place = self._open(thread)
        if thread.outcome is not None:
            self._close(place, thread, value(thread, self._scorer), thread.final)

    def _close(self, place: int, thread: ThreadInfo, score: float | None, body: str) -> None:
        if thread.canonical is None:
            self.ballots.close(place, None)
            return
        candidate = Candidate(place, 0.0 if score is None else score, thread, body)
        if is_right(thread) and (self.right is None or place < self.right.place):
            self.right = candidate
        if score is None:
            self.unscored += 1
            self.ballots.close(place, None)
            return
        if self.best is None or (-score, place) < (-self.best.score, self.best.place):
            self.best = candidate
        self.ballots.close(place, Ballot(thread.canonical, score, candidate))


class StepCandidates(Candidates):
    """Solutions written in steps, each step scored once; `how` makes one score of a solution's."""

    def __init__(self, name: str, scorer: str, how: Aggregate, depth: int) -> None:
        super().__init__(name, scorer)
        self._tree = StepTree()
        self._how: Aggregate = how
        self._depth = depth

    def _put(self, thread: ThreadInfo) -> None:
        place, (node,) = self._open(thread), self._tree.update([thread])
        self.waiting.pop(place, None)
        if node.alive and node.depth < self._depth:
            self.waiting[place] = node
        elif not node.running:
            path = [node] if self._how == "last" else node.path()
            scored = all(each.info.score is not None for each in path)
            self._close(place, thread, node.value(self._how) if scored else None, node.text)
