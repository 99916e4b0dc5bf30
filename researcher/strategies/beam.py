"""Beam search over steps (search-and-learn), steered by the score of each step, with a beam that shrinks.

A level has as many steps as solutions are missing: width = n - |ended|, the rule of compute-optimal-tts; the search
ends at |ended| = n, not after 40 iterations. The best width/m steps are kept, and the next level is filled with them by
turns. With `shrink` off the width stays n and the first n solutions count, as in search-and-learn.

Barriers: whether a step is kept depends on the others of its level. A step goes on before they have ended as soon as it
is certain to be kept: those before it have ended, and those to come cannot take its place, be it that they are too few,
or that nothing scores above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from researcher.strategies.levels import Levels, LevelSearch, Ranked, Slot, child
from researcher.strategies.solutions import MOST
from researcher.strategies.steps import Node
from researcher.views import View


class Beam(LevelSearch):
    """Keeps the best steps of each level."""

    kind: ClassVar[str] = "beam"
    name: Literal["beam"] = "beam"
    n: int = Field(default=16, ge=1, le=100_000, description="beams, and solutions wanted (search-and-learn: 4)")
    m: int = Field(default=4, ge=1, le=100_000, description="expansions of each kept beam (search-and-learn: 4)")
    shrink: bool = Field(default=True, description="a level has a step for each solution that is missing, not always n")
    merge: bool = Field(default=True, description="of the beams in one state of the task only the best is kept")

    def counts(self, levels: Levels, number: int) -> bool:
        """Without shrinking more than n may end: the first ones count, so all before it must have ended."""
        return self.shrink or (number < levels.first_open and len(levels.solutions.all) < self.n)

    def following(self, view: View, levels: Levels, nodes: list[Node]) -> list[Slot]:
        """The best beams by turns, in the order of their level, until the width is filled."""
        width = self._width(levels)
        best = [each for _, each in zip(range(self._keep(width)), self._distinct(levels), strict=False)]
        kept = [each.node for each in sorted(best, key=lambda each: each.number)]
        return [child(kept[s % len(kept)], s // len(kept)) for s in range(width)] if kept else []

    def ahead(self, levels: Levels) -> Iterator[Slot]:
        """The first children of beams that are certain to be kept; each gets its share of the narrowest level."""
        running, width = len(levels.open), self._width(levels)
        least = width - running if self.shrink else width  # if all that run come to their answers
        keep, share = self._keep(least), least // max(1, self._keep(width))
        for rank, (loss, number, node) in enumerate(self._distinct(levels)):
            highest = -loss >= MOST
            if rank + (0 if highest else running) >= keep:
                return
            doubled = not highest and self.merge and node.info.state is not None  # perhaps, by a better one that runs
            if number < levels.first_open and not doubled:
                yield from (child(node, j) for j in range(len(node.children), share))

    def _width(self, levels: Levels) -> int:
        missing = self.n - len(levels.solutions.all)
        return missing if self.shrink or not missing else self.n

    def _keep(self, width: int) -> int:
        return -(-width // self.m)

    def _distinct(self, levels: Levels) -> Iterator[Ranked]:
        """The beams of the level, the best first, without those that repeat a better one's words or state."""
        texts: set[tuple[str, str]] = set()
        states: set[str] = set()
        for each in levels.ranked:
            info = each.node.info
            text = info.work.parent, info.final  # beams of one level have parents with different words
            state = info.state if self.merge else None
            if text not in texts and state not in states:
                texts.add(text)
                if state is not None:
                    states.add(state)
                yield each
