"""Particle filtering over steps (Puri et al. 2025, its_hub): n particles, resampled by their scores after each step.

The weight of a particle is softmax(logit(score)); n particles are drawn with replacement, and each that has no answer
yet takes its next step. The entropic variant flattens the weights while few particles hold them all, early on.

This is a barrier by nature, and it is kept: the logit has no bound, so a score to come may take all of the weight, and
no draw is certain before the level has ended. Particles that have their answer wait without sampling anything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import ClassVar, Literal

from pydantic import Field

from researcher.strategies.base import seed_of
from researcher.strategies.levels import Levels, LevelSearch, Slot, child
from researcher.strategies.solutions import Choice
from researcher.strategies.steps import Node
from researcher.views import View

CLIP = 1e-7
"""Scores and probabilities are kept this far from 0 and 1 (its_hub)."""


class ParticleFilter(LevelSearch):
    """Draws the particles of each level from those of the level before."""

    kind: ClassVar[str] = "particle_filter"
    name: Literal["particle_filter"] = "particle_filter"
    n: int = Field(default=16, ge=1, le=100_000, description="particles (Puri et al. 2025: 4 to 128)")
    choose: Choice = Field(default="naive", description="who wins among the last particles (its_hub: the best, naive)")
    entropic: bool = Field(default=False, description="flatten the weights early on (its_hub: entropic annealing)")
    ess_threshold: float = Field(default=0.5, ge=0.0, le=1.0, description="flatten below this ESS / n (its_hub: 0.5)")
    early_phase: float = Field(default=0.5, ge=0.0, le=1.0, description="share of the depth that is early (its_hub)")

    def counts(self, levels: Levels, number: int) -> bool:
        """No: a particle with its answer can still be replaced, until all have theirs."""
        return False

    def following(self, view: View, levels: Levels, nodes: list[Node]) -> list[Slot]:
        """The next steps of the particles that are drawn; those with their answer are carried over."""
        usable = [node for node in nodes if self.solved(node) or self.good(node)]
        particles = levels.carried + usable
        if not particles:
            return []
        drawn = self._draw(view, levels, particles)
        levels.carried = [node for node in drawn if node.complete]
        slots: list[Slot] = []
        copies: Counter[str] = Counter()
        for node in drawn:
            if not node.complete:
                slots.append(child(node, copies[node.key]))
                copies[node.key] += 1
        if not slots:
            for place, node in enumerate(levels.carried):
                levels.solutions.add(place, node, node.value(self.aggregate))
        return slots

    def _draw(self, view: View, levels: Levels, particles: list[Node]) -> list[Node]:
        """n particles, drawn by weight with replacement."""
        logits = [logit(node.value(self.aggregate)) for node in particles]
        weights = softmax(logits)
        if self.entropic and self.n > 1:
            ratio, progress = effective_size(weights) / self.n, levels.depth / self.depth
            if ratio < self.ess_threshold and progress < self.early_phase:
                weights = softmax(logits, annealing_temperature(ratio, progress))
        random = Random(seed_of(view.seed, f"{self.kind}/draw/{levels.depth}"))
        return random.choices(particles, weights, k=self.n)


def logit(score: float) -> float:
    """ln(p / (1 - p)) of a score in [0, 1]."""
    p = min(max(score, CLIP), 1.0 - CLIP)
    return math.log(p / (1.0 - p))


def softmax(values: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Probabilities in proportion to exp(value / temperature)."""
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]


def effective_size(probabilities: Sequence[float]) -> float:
    """The effective sample size, 1 / sum of p^2: how many particles share the weight."""
    return 1.0 / sum(min(max(p, CLIP), 1.0 - CLIP) ** 2 for p in probabilities)


def annealing_temperature(ess_ratio: float, progress: float) -> float:
    """max(1, (1 / ess_ratio) * (1 - progress)): the fewer hold the weight, and the earlier, the flatter (its_hub)."""
    return max(1.0, (1.0 / ess_ratio) * (1.0 - progress))
