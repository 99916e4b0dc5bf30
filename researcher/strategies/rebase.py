"""REBASE, reward-balanced search (Wu et al. 2024): steps are continued in proportion to exp(score / 0.2).

A level has as many steps as solutions are missing. They are given out from the best step down: ceil(rest * w / sum of
the weights not yet served), until none remain.

Barriers: what a step gets depends on the scores of its whole level. But it has a least share, whatever those come to
that still run; so much is started before they have ended (`promised`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import ClassVar, Literal

from pydantic import Field

from researcher.strategies.levels import Levels, LevelSearch, Slot, child
from researcher.strategies.steps import Node
from researcher.views import View

ROUNDING = 1e-9
"""What a share may exceed a whole number by, and still count as that number."""


class Rebase(LevelSearch):
    """Splits the steps of a level among those of the level before, by their scores."""

    kind: ClassVar[str] = "rebase"
    name: Literal["rebase"] = "rebase"
    n: int = Field(default=16, ge=1, le=100_000, description="solutions wanted, and the width (thu-wyz/rebase: 16)")
    softmax_temperature: float = Field(default=0.2, ge=0.01, le=100.0, description="of the split (Wu et al. 2024: 0.2)")
    depth: int = Field(default=25, ge=1, le=10_000, description="steps a solution may have (thu-wyz/rebase: 25)")
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, description="sampling temperature (thu-wyz/rebase: 1)")

    def following(self, view: View, levels: Levels, nodes: list[Node]) -> list[Slot]:
        """The children of the level's steps, those of the best first."""
        shares = split(self._weights(levels), self.n - len(levels.solutions.all))
        return [child(each.node, j) for each, share in zip(levels.ranked, shares, strict=True) for j in range(share)]

    def ahead(self, levels: Levels) -> Iterator[Slot]:
        """The children that the steps so far get in any case."""
        running, missing = len(levels.open), self.n - len(levels.solutions.all)
        if running * 4 > missing:  # hardly anything is certain, and the sums would be done for nothing
            return
        shares = promised(self._weights(levels), missing, running)
        for each, share in zip(levels.ranked, shares, strict=False):
            yield from (child(each.node, j) for j in range(len(each.node.children), share))

    def _weights(self, levels: Levels) -> list[float]:
        """exp(score / T) of the steps that can go on, the largest first, as a share of the weight of a score of 1."""
        return [math.exp((each.value - 1.0) / self.softmax_temperature) for each in levels.ranked]


def split(weights: Sequence[float], budget: int) -> list[int]:
    """How many of `budget` expansions each gets; weights from the largest down. The sum is the budget."""
    shares: list[int] = []
    for weight, rest in zip(weights, _tails(weights), strict=True):
        share = min(budget, math.ceil(budget * weight / rest - ROUNDING))
        shares.append(share)
        budget -= share
    return shares


def promised(weights: Sequence[float], budget: int, running: int) -> Iterator[int]:
    """How many each gets at the least, when `running` more may come, of weight 1 at most, or be solutions; down to the
    last that gets any.

    Whoever is served takes less than its share and one, so the k-th (from 0) finds more than share_1 * (sum from it on)
    - k left, where share_1 = budget / sum of all, and gets more than (share_1 - k / (sum from it on)) * its weight. At
    the worst all that run are solutions, weigh 1, and are served before it.
    """
    tails = _tails(weights)
    unit = (budget - running) / (tails[0] + running) if tails else 0.0
    for rank, (weight, tail) in enumerate(zip(weights, tails, strict=True)):
        share = math.ceil(weight * (unit - (rank + running) / tail) - ROUNDING)
        if share <= 0:  # and so it is for all after it
            return
        yield share


def _tails(weights: Sequence[float]) -> list[float]:
    """The sums from each weight on."""
    return list(accumulate(reversed(weights)))[::-1]
