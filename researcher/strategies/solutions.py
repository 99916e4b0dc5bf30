"""The solutions of a search over steps: which steps count as one, which of them wins, and why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

from msgspec.structs import replace
from pydantic import Field

from researcher.strategies.base import conclude, wants_support
from researcher.strategies.steps import Node, StepParameters, StepTree
from researcher.strategies.votes import Tally
from researcher.types import Outcome, VerdictStatus, Work
from researcher.views import Plan, View

Choice = Literal["naive", "weighted", "majority"]
"""The answer of the best score, of the largest sum of scores, or of the most solutions."""

MOST = 1.0
"""The score that none exceeds."""


class Solution(NamedTuple):
    """A node that holds an answer. `place` orders the solutions of a search, whenever they came."""

    place: int
    node: Node
    score: float


class Solutions:
    """The solutions of one search as they come in; who wins does not depend on when they came."""

    __slots__ = ("_best", "_how", "_tally", "all")

    def __init__(self, how: Choice) -> None:
        self.all: list[Solution] = []
        self._how = how
        self._best: Solution | None = None
        self._tally = Tally[Solution]()

    def add(self, place: int, node: Node, score: float) -> None:
        """Count one in."""
        assert node.info.canonical is not None
        solution = Solution(place, node, score)
        self.all.append(solution)
        self._tally.add(node.info.canonical, place, solution, score if self._how == "weighted" else 1.0)
        if self._best is None or (-score, place) < (-self._best.score, self._best.place):
            self._best = solution

    def decided(self, pending: int, before: int) -> bool:
        """Whether no outcome of the `pending` solutions that may still come, at places from `before` on, can change
        the winning answer."""
        if self._best is None:
            return False
        if pending <= 0:
            return True
        if self._how == "naive":
            return self._best.score >= MOST and self._best.place < before
        return self._tally.decided(pending, MOST)

    @property
    def winners(self) -> list[Solution]:
        """The solutions of the winning answer, the best scored first; empty if there is none."""
        if self._best is None:
            return []
        won = self._best if self._how == "naive" else self._tally.leader[0]
        agreeing = [each for each in self.all if each.node.info.canonical == won.node.info.canonical]
        return sorted(agreeing, key=lambda each: (-each.score, each.place))


class SearchParameters(StepParameters):
    """Base of the searches that collect solutions and choose among them."""

    kind: ClassVar[str]
    """The name of the strategy, with which its keys begin."""
    scorer: str = Field(default="prm", min_length=1, description="verifier that scores each new step, once")
    choose: Choice = Field(default="weighted", description="who wins: naive, weighted or majority (search-and-learn)")
    floor: float = Field(default=0.0, ge=0.0, lt=1.0, description="a step that scores no more than this is a dead end")
    stop_when_verified: bool = Field(default=True, description="stop at an answer that the task's verifier calls right")

    def good(self, node: Node) -> bool:
        """Whether the search may go on from here: a step that could be scored, above the floor and the depth."""
        return node.alive and node.depth < self.depth and self._scored(node)

    def solved(self, node: Node) -> bool:
        """Whether it is a solution: complete, with an answer, and scored (a majority needs no score of it)."""
        counts = self._scored(node) or (self.choose == "majority" and node.info.score is None)
        return node.complete and node.info.canonical is not None and counts

    def _scored(self, node: Node) -> bool:
        return node.info.score is not None and node.info.score > self.floor

    def verified(self, nodes: Iterable[Node]) -> Node | None:
        """The first of these whose answer the task's verifier calls right, where that ends the search."""
        if not self.stop_when_verified:
            return None
        return next((node for node in nodes if _right(node)), None)

    def accept(self, view: View, node: Node) -> Plan:
        """The plan that ends the search with an answer that was found right."""
        answer = conclude(
            [node.info], view.graph, of=1, wanted=True, reason="the task's verifier calls this answer right"
        )
        return Plan(answer=replace(answer, body=node.text), cancel=tuple(view.in_flight))

    def finish(self, view: View, tree: StepTree, solutions: Solutions, *, limited: bool = False) -> Plan:
        """The plan that ends the search with the winner, or with why there is none.

        Where the budget ended it before any path did, one thread goes on from the best step to an answer, with the
        slice that is kept for that.
        """
        cancel, winners = tuple(view.in_flight), solutions.winners
        if not winners:
            last = tree.nodes.get(f"{self.kind}/last")
            if limited and last is None and (work := self._last(view, tree)) is not None:
                return Plan(start=(work,))
            if last is not None and last.info.canonical is not None:
                return self._answered_last(view, tree, last)
            why = post_mortem(tree, self.scorer, floor=self.floor, depth=self.depth)
            return Plan(failure=why, cancel=cancel, limited=limited or not view.budget.spendable)
        unscored = sum(node.info.outcome is Outcome.ANSWERED and node.info.score is None for node in tree)
        reason = f"{self.choose} choice among {len(solutions.all)} solutions of {len(tree.nodes)} steps"
        if unscored:
            reason += f"; {unscored} steps that {self.scorer} could not score were passed over"
        answer = conclude(
            [each.node.info for each in winners],
            view.graph,
            of=len(solutions.all),
            wanted=wants_support(view.task),
            reason=reason,
        )
        return Plan(answer=replace(answer, body=winners[0].node.text), cancel=cancel, limited=limited)

    def _last(self, view: View, tree: StepTree) -> Work | None:
        """Work that goes on from the best step that can be continued to the end of the solution."""
        leaves = [node for node in tree if self.good(node) and not node.children]
        if not leaves:
            return None
        best = max(leaves, key=lambda node: (node.value(self.aggregate), -node.info.order))
        step = self.step(view, f"{self.kind}/last", best, group=best.info.work.group)
        sampling = replace(step.sampling, max_tokens=self.max_tokens, stop=(), keep_stop=False)
        return replace(step, sampling=sampling, reserved=True)

    def _answered_last(self, view: View, tree: StepTree, last: Node) -> Plan:
        reason = f"the budget ended the search after {len(tree.nodes) - 1} steps; this answer goes on from the best"
        answer = conclude([last.info], view.graph, of=1, wanted=wants_support(view.task), reason=reason)
        return Plan(answer=replace(answer, body=last.text), cancel=tuple(view.in_flight), limited=True)


def _right(node: Node) -> bool:
    verdict = node.info.verdict
    return node.info.canonical is not None and verdict is not None and verdict.status is VerdictStatus.CORRECT


def post_mortem(nodes: Iterable[Node], scorer: str, *, floor: float, depth: int) -> str:
    """Why these steps came to no solution, with counts, in one sentence."""
    steps = list(nodes)
    if not steps:
        return "no solution; no step could be started"
    said = [node for node in steps if node.info.outcome is Outcome.ANSWERED]
    unscored = [node for node in said if node.info.score is None]
    if said and len(unscored) == len(said):
        head = f"the scorer {scorer} could not score any of the {len(said)} steps"
    else:
        ends = [_end(node, floor=floor, depth=depth) for node in steps if not node.children]
        counts = ", ".join(f"{count} {end}" for end, count in Counter(ends).most_common())
        head = f"no solution among {len(steps)} steps; of {len(ends)} ends {counts}"
    broken = (node.info for node in steps if node.info.outcome is not Outcome.CANCELLED)
    details = dict.fromkeys(info.detail for info in broken if info.detail)
    return "; ".join([head, *list(details)[:3]])


def _end(node: Node, *, floor: float, depth: int) -> str:
    """How a path of steps that nobody continued ended, in words."""
    info = node.info
    if info.outcome is not Outcome.ANSWERED:
        return str(info.outcome) if info.outcome is not None else "still ran"
    if info.score is None:
        return "could not be scored"
    if node.complete and info.canonical is None:
        return "had no answer"
    if info.score <= floor:
        return f"scored no more than {floor:g}"
    return f"reached the depth of {depth}" if node.depth >= depth else "were not kept"
