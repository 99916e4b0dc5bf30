"""Diverse verifier tree search (Beeching et al. 2024, search-and-learn): independent subtrees, greedy by score.

Each of n/m subtrees samples m next steps, scores them and goes on from the best, until the best has its answer. The
complete steps of its last level are its solutions, and nothing else is: a sibling that is not complete is no answer.

With `lookahead` a candidate is first continued greedily for so many steps, and is worth what the path is worth there:
those steps are scored like any other. No subtree waits for another one, and a subtree waits for no sibling that cannot
matter: once a step that can go on has the highest score there is, and is the first that has it, the others are stopped.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from researcher.strategies.levels import Slot
from researcher.strategies.solutions import MOST, Choice, SearchParameters, Solutions
from researcher.strategies.steps import Node, StepTree, child_key
from researcher.types import Work
from researcher.views import Plan, View

LOOK = "look"
"""The number of a lookahead step among its parent's children."""
DEAD = -1.0


class Candidate(NamedTuple):
    """One of the m next steps. `value`: what it is worth, None while that is not known; `end`: the step that is to say
    so, its own or one of its lookahead; `wanted`: what has to be sampled first."""

    node: Node | None
    value: float | None = None
    end: Node | None = None
    wanted: Slot | None = None


class Subtree:
    """One greedy search. `tip`: the step it goes on from; `wanted`: the steps it waits for that have no thread."""

    __slots__ = ("group", "index", "over", "tip", "wanted")

    def __init__(self, name: str, index: int) -> None:
        self.index, self.group = index, f"{name}/{index}"
        self.tip: Node | None = None
        self.over = False
        self.wanted: list[Slot] = []


class Grove:
    """All subtrees by group, those of them that want steps, and what came of those that are over. `stale`: steps that
    no subtree waits for any more; `verified`: an answer that was found right."""

    __slots__ = ("decided", "left", "solutions", "stale", "trees", "verified", "wanting")

    def __init__(self, name: str, count: int, how: Choice) -> None:
        self.trees = {tree.group: tree for tree in (Subtree(name, index) for index in range(count))}
        self.left = count
        self.wanting: dict[int, Subtree] = {}
        self.stale: list[Node] = []
        self.solutions = Solutions(how)
        self.decided = False
        self.verified: Node | None = None


class DVTS(SearchParameters):
    """Searches n/m subtrees, each greedily."""

    kind: ClassVar[str] = "dvts"
    name: Literal["dvts"] = "dvts"
    n: int = Field(default=16, ge=1, le=100_000, description="steps side by side (search-and-learn: 4 to 256)")
    m: int = Field(default=4, ge=1, le=100_000, description="next steps of each of n/m subtrees (search-and-learn: 4)")
    lookahead: int = Field(default=0, ge=0, le=1_000, description="greedy steps before the score (search-and-learn: 0)")

    @field_validator("m")
    @classmethod
    def _divides(cls, m: int, info: ValidationInfo) -> int:
        if (n := info.data.get("n")) is not None and n % m:
            raise ValueError(f"n must be a multiple of m, and n is {n}")
        return m

    def plan(self, view: View) -> Plan:
        """Fill the free slots with the steps that the subtrees want, the first subtree first."""
        steps = StepTree.of(view, self.name)
        grove = self._grove(view, steps)
        if grove.verified is not None:
            return self.accept(view, grove.verified)
        if grove.decided or not grove.left:
            return self.finish(view, steps, grove.solutions)
        works: list[Work] = []
        for _, tree in sorted(grove.wanting.items()) if view.budget.spendable else ():
            works += [self._work(view, tree, slot) for slot in tree.wanted[: view.free - len(works)]]
            if len(works) >= view.free:
                break
        if not works and not view.in_flight:
            return self.finish(view, steps, self._there(grove, steps), limited=True)
        return Plan(start=tuple(works), cancel=tuple(n.key for n in grove.stale if n.key in view.in_flight))

    def _there(self, grove: Grove, steps: StepTree) -> Solutions:
        """All solutions there are where the budget ends the search: those of levels that did not come to an end too."""
        there = Solutions(self.choose)
        for solution in grove.solutions.all:
            there.add(*solution)
        for tree in (each for each in grove.trees.values() if not each.over):
            for j in range(self.m):
                node = steps.nodes.get(child_key(tree.tip.key if tree.tip else tree.group, j))
                if node is not None and self.solved(node):
                    there.add(tree.index * self.m + j, node, node.value(self.aggregate))
        return there

    def _work(self, view: View, tree: Subtree, slot: Slot) -> Work:
        greedy = 0.0 if slot.parent is not tree.tip else None
        return self.step(view, slot.key, slot.parent, group=tree.group, temperature=greedy)

    def _grove(self, view: View, steps: StepTree) -> Grove:
        """The fold of the steps, kept in the memo, after what is new in them."""
        name = f"{self.name}/subtrees"
        grove = view.memo.get(name)
        if not isinstance(grove, Grove):
            grove = view.memo[name] = Grove(self.name, self.n // self.m, self.choose)
            touched = list(grove.trees)
        else:
            touched = list(dict.fromkeys(node.info.work.group for node in steps.fresh))
        if grove.verified is None:
            grove.verified = self.verified(steps.fresh)
        for tree in (grove.trees[group] for group in touched if group in grove.trees):
            self._advance(grove, tree, steps)
            if tree.wanted:
                grove.wanting[tree.index] = tree
            else:
                grove.wanting.pop(tree.index, None)
        grove.stale = [node for node in grove.stale if node.running]
        return grove

    def _advance(self, grove: Grove, tree: Subtree, steps: StepTree) -> None:
        """Go on from the best step for as long as that is known."""
        while not tree.over:
            keys = (child_key(tree.tip.key if tree.tip else tree.group, j) for j in range(self.m))
            candidates = [self._candidate(Slot(key, tree.tip), steps) for key in keys]
            tree.wanted = [each.wanted for each in candidates if each.wanted is not None]
            best = _best(candidates)
            if best is None:
                return
            grove.stale += [each.end for each in candidates if each.end is not None and each.end.running]
            tree.wanted, tree.tip = [], best.node
            if best.value == DEAD or (best.node is not None and best.node.complete):
                self._end(grove, tree, [each.node for each in candidates if each.node is not None])

    def _end(self, grove: Grove, tree: Subtree, last: list[Node]) -> None:
        """Count a subtree's solutions, and see whether those to come can still change who wins."""
        tree.over, grove.left = True, grove.left - 1
        for place, node in enumerate(last, start=tree.index * self.m):
            if self.solved(node):
                grove.solutions.add(place, node, node.value(self.aggregate))
        before = next((each.index for each in grove.trees.values() if not each.over), len(grove.trees))
        grove.decided = grove.solutions.decided(grove.left * self.m, before * self.m)

    def _candidate(self, slot: Slot, steps: StepTree) -> Candidate:
        """What is known of one of the m next steps, with its lookahead."""
        node = steps.nodes.get(slot.key)
        if node is None or node.running:
            return Candidate(node, end=node, wanted=slot if node is None else None)
        if not self.good(node):
            return Candidate(node, node.value(self.aggregate) if self.solved(node) else DEAD)
        seen = node
        for _ in range(self.lookahead):
            if not self.good(seen):
                break
            slot = Slot(child_key(seen.key, LOOK), seen)
            ahead = steps.nodes.get(slot.key)
            if ahead is None or ahead.running:
                return Candidate(node, end=ahead, wanted=slot if ahead is None else None)
            if ahead.info.score is None:  # it failed, or could not be scored: what is known counts
                break
            seen = ahead
        return Candidate(node, seen.value(self.aggregate))


def _best(candidates: list[Candidate]) -> Candidate | None:
    """The best of them, the first of equal ones; None while that depends on what is not known yet."""
    best: Candidate | None = None
    top = DEAD
    for each in candidates:
        if each.value is None:
            goes_on = best is not None and best.node is not None and best.node.alive
            return best if goes_on and top >= MOST else None
        if best is None or each.value > top:
            best, top = each, each.value
    return best
