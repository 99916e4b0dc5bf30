"""Search by levels: all steps of a level are scored, then the next level is made from the best of them.

A level is a barrier by nature. A search waits no longer than it must: it starts the steps of the next level that are
certain already (`ahead`), and it ends as soon as no step to come can change who wins.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from pydantic import Field

from researcher.strategies.solutions import Choice, SearchParameters, Solutions
from researcher.strategies.steps import Node, StepTree, child_key
from researcher.types import Work
from researcher.views import Plan, View


class Slot(NamedTuple):
    """A step that is wanted: its key, and the step that it continues."""

    key: str
    parent: Node | None


class Ranked(NamedTuple):
    """A step that can go on; the least is the best, of equal ones the first of its level."""

    loss: float
    number: int
    node: Node

    @property
    def value(self) -> float:
        """The score of its path."""
        return -self.loss


class Levels:
    """Where a search stands, as a fold of its tree.

    `slots`: the steps of the level; `open`: those that have not ended, with their numbers; `ranked`: those that can go
    on, the best first; `found`: solutions of the level that are not yet counted, by number; `carried`: what a strategy
    takes from level to level; `verified`: an answer that was found right.
    """

    __slots__ = (
        "begun",
        "carried",
        "decided",
        "depth",
        "found",
        "open",
        "over",
        "ranked",
        "slots",
        "solutions",
        "verified",
    )

    def __init__(self, how: Choice) -> None:
        self.depth = 0
        self.slots: Sequence[Slot] = ()
        self.open: dict[str, int] = {}
        self.ranked: list[Ranked] = []
        self.found: dict[int, Node] = {}
        self.carried: list[Node] = []
        self.solutions = Solutions(how)
        self.begun = 0
        self.decided = self.over = False
        self.verified: Node | None = None

    @property
    def first_open(self) -> int:
        """The number of the first step that has not ended."""
        return next(iter(self.open.values()), len(self.slots))

    def unstarted(self, tree: StepTree) -> Iterator[Slot]:
        """The steps of the level that have no thread, in order; the cost does not grow with those that have."""
        while self.begun < len(self.slots) and self.slots[self.begun].key in tree.nodes:
            self.begun += 1
        rest = (self.slots[number] for number in range(self.begun, len(self.slots)))
        return (slot for slot in rest if slot.key not in tree.nodes)


class LevelSearch(SearchParameters):
    """Base of the searches by levels: they say which steps come next, and when a solution counts."""

    n: int = Field(default=16, ge=1, le=100_000, description="steps of the first level, and solutions wanted")

    @abstractmethod
    def following(self, view: View, levels: Levels, nodes: list[Node]) -> list[Slot]:
        """The next level, now that these are the ended steps of this one; none: the search is over."""

    def ahead(self, levels: Levels) -> Iterable[Slot]:
        """Steps of the next level that are certain, however the open steps of this one end."""
        return ()

    def counts(self, levels: Levels, number: int) -> bool:
        """Whether a solution of the level counts, although other steps of the level are open."""
        return True

    def plan(self, view: View) -> Plan:
        """Fill the free slots with the steps of the level, and then with what is certain of the next."""
        tree = StepTree.of(view, self.kind)
        levels = self._levels(view, tree)
        if levels.verified is not None:
            return self.accept(view, levels.verified)
        if levels.over or levels.decided:
            return self.finish(view, tree, levels.solutions)
        works = self._works(view, tree, levels)
        if not works and not view.in_flight:
            return self.finish(view, tree, self._there(levels), limited=True)
        return Plan(start=works)

    def _there(self, levels: Levels) -> Solutions:
        """All solutions there are where the budget ends a search amid a level: those that did not count yet too."""
        there = Solutions(self.choose)
        for solution in levels.solutions.all:
            there.add(*solution)
        for place, node in enumerate(levels.carried):
            there.add(place, node, node.value(self.aggregate))
        for number, node in sorted(levels.found.items()):
            if len(there.all) < self.n:
                there.add(self._place(levels, number), node, node.value(self.aggregate))
        return there

    def _works(self, view: View, tree: StepTree, levels: Levels) -> tuple[Work, ...]:
        works: list[Work] = []
        if view.free and view.budget.spendable:
            for slot in chain(levels.unstarted(tree), self.ahead(levels)):
                works.append(self.step(view, slot.key, slot.parent, group=group_of(slot)))
                if len(works) == view.free:
                    break
        return tuple(works)

    def _levels(self, view: View, tree: StepTree) -> Levels:
        """The fold of the tree, kept in the memo, after what is new in it."""
        name = f"{self.kind}/levels"
        levels = view.memo.get(name)
        if not isinstance(levels, Levels):
            levels = view.memo[name] = Levels(self.choose)
            self._enter(levels, tree, [Slot(f"{self.kind}/{i}", None) for i in range(self.n)])
        if levels.verified is None:
            levels.verified = self.verified(tree.fresh)
        ended = [node for node in tree.fresh if node.key in levels.open and not node.running]
        for node in ended:
            self._take(levels, levels.open.pop(node.key), node)
        if ended:
            self._count(levels)
        while not levels.open and not levels.over and not levels.decided:
            nodes = [tree.nodes[slot.key] for slot in levels.slots]
            self._enter(levels, tree, self.following(view, levels, nodes))
        return levels

    def _enter(self, levels: Levels, tree: StepTree, slots: list[Slot]) -> None:
        """Begin a level; after a resume some of its steps may have ended already."""
        levels.depth += 1
        levels.slots, levels.begun, levels.over = slots, 0, not slots
        levels.ranked.clear()
        levels.found.clear()
        for number, slot in enumerate(slots):
            node = tree.nodes.get(slot.key)
            if node is None or node.running:
                levels.open[slot.key] = number
            else:
                self._take(levels, number, node)
        self._count(levels)

    def _take(self, levels: Levels, number: int, node: Node) -> None:
        if self.solved(node):
            levels.found[number] = node
        elif self.good(node):
            insort(levels.ranked, Ranked(-node.value(self.aggregate), number, node))

    def _count(self, levels: Levels) -> None:
        """Count the solutions that count by now, and see whether they decide the search."""
        for number in sorted(levels.found):
            if self.counts(levels, number):
                node = levels.found.pop(number)
                levels.solutions.add(self._place(levels, number), node, node.value(self.aggregate))
        pending = self.n - len(levels.solutions.all)
        levels.decided = levels.solutions.decided(pending, self._place(levels, levels.first_open))

    def _place(self, levels: Levels, number: int) -> int:
        return levels.depth * (self.n + 1) + number


def child(parent: Node, number: int) -> Slot:
    """The slot of a step's child."""
    return Slot(child_key(parent.key, number), parent)


def group_of(slot: Slot) -> str:
    """The group of a step: that of its first step, so that a path stays with the server that has it cached."""
    return slot.key if slot.parent is None else slot.parent.info.work.group
