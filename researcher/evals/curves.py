"""Accuracy against the number of samples, from the samples of one set of runs: `curves(results)`.

A run that took N samples holds many runs of n < N: subsets of its samples. So a whole curve comes from one set of
runs, and is named subsampled, because it was not measured run by run. The ways to choose among n samples:

- `majority`: the most frequent answer, the first to come among equals (self-consistency);
- `best`: the answer of the highest score ("naive" best-of-N), `weighted`: the answer whose samples' scores sum to the
  most (weighted best-of-N); where the samples have scores;
- `any`: whether one is right at all, which is what a perfect verifier would reach: pass@n, computed and not drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from researcher.errors import UserError
from researcher.evals.record import Result, Sample
from researcher.intervals import Interval, over_seeds, pass_at_k, wilson
from researcher.types import VerdictStatus

Method = Literal["majority", "weighted", "best", "any"]
METHODS: tuple[Method, ...] = ("majority", "weighted", "best", "any")
DRAWS = 32
"""Subsets that are drawn of each run's samples at each n."""
COMPLETE = 0.98
"""Share of the runs that must have all samples: those that were cut short are not like the others."""


class Point(NamedTuple):
    """Accuracy of a method with n samples; `completion` are the tokens these cost on average."""

    n: int
    accuracy: float
    interval: Interval
    completion: float


class Curve(NamedTuple):
    """Points of one method, subsampled from `runs` runs of `samples` samples; `left_out` had fewer."""

    strategy: str
    method: Method
    samples: int
    runs: int
    left_out: int
    points: tuple[Point, ...]


def curves(strategy: str, results: Iterable[Result]) -> list[Curve]:
    """The curves of a strategy that samples whole answers. Raises UserError where too many runs were cut short."""
    runs = [result for result in results if result.status is not VerdictStatus.UNVERIFIED]
    most = max((len(run.samples) for run in runs), default=0)
    whole = [run for run in runs if len(run.samples) == most]
    if most < 2:
        raise UserError(f"--curve {strategy}: its runs hold no samples to draw from; name a vote or a best_of_n.")
    if len(whole) < COMPLETE * len(runs):
        raise UserError(
            f"--curve {strategy}: only {len(whole)} of {len(runs)} runs took all {most} samples; give it stop=full and "
            "a budget that is enough for all of them."
        )
    scored = all(sample.score is not None for run in whole for sample in run.samples if sample.answer is not None)
    methods: list[Method] = [m for m in METHODS if scored or m in ("majority", "any")]
    left_out = len(runs) - len(whole)
    return [Curve(strategy, m, most, len(whole), left_out, tuple(_points(whole, m, most))) for m in methods]


def sizes(most: int) -> list[int]:
    """1, 2, 4, ... and the most there are."""
    return sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most})


def _points(runs: Sequence[Result], method: Method, most: int) -> Iterable[Point]:
    each = fmean(sample.completion for run in runs for sample in run.samples)
    for n in sizes(most):
        shares = [_share(run, method, n) for run in runs]
        seeds: dict[int, list[float]] = {}
        for run, share in zip(runs, shares, strict=True):
            seeds.setdefault(run.seed, []).append(share)
        pooled = wilson(round(sum(shares)), len(shares))
        interval = over_seeds([fmean(values) for values in seeds.values()]) or pooled
        yield Point(n, fmean(shares), interval, n * each)


def _share(run: Result, method: Method, n: int) -> float:
    """How often the method is right on n of the run's samples."""
    if method == "any":
        return pass_at_k(len(run.samples), sum(map(is_right, run.samples)), n)
    if n == len(run.samples):
        return float(chosen_right(run.samples, method))
    rng = random.Random(f"curve/{run.problem}/{run.seed}/{n}")  # the same subsets for all methods
    subsets = (sorted(rng.sample(range(len(run.samples)), n)) for _ in range(DRAWS))
    return fmean(chosen_right([run.samples[i] for i in subset], method) for subset in subsets)


def chosen_right(samples: Sequence[Sample], method: Method) -> bool:
    """Whether the answer that the method chooses among these samples, in submission order, is right."""
    voters = [sample for sample in samples if sample.answer is not None]
    if not voters:
        return False
    if method == "best":
        return is_right(max(voters, key=lambda sample: sample.score or 0.0))
    if method == "any":
        return any(map(is_right, voters))
    weights: dict[str, float] = {}
    for sample in voters:
        weight = 1.0 if method == "majority" else sample.score or 0.0
        weights[sample.canonical] = weights.get(sample.canonical, 0.0) + weight
    winner = max(weights, key=lambda name: weights[name])  # the first of equals: dicts keep the order
    return is_right(next(sample for sample in voters if sample.canonical == winner))


def is_right(sample: Sample) -> bool:
    """Whether the sample's own answer is right."""
    return sample.status is VerdictStatus.CORRECT
