"""Shares with their uncertainty: Wilson's interval, Student's over seeds, the paired difference, pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

Z = NormalDist().inv_cdf(0.975)

T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""The 97.5 % point of Student's t for 1 to 10 degrees of freedom; beyond, `_t` approximates it."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def wilson(right: float, n: float) -> Interval:
    """Wilson's interval of a share (Wilson 1927); of nothing, the whole of [0, 1]."""
    if n == 0:
        return Interval(0.0, 1.0)
    share = right / n
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Interval(max(0.0, (middle - half) / (1 + Z * Z / n)), min(1.0, (middle + half) / (1 + Z * Z / n)))


def over_problems(runs: Sequence[Sequence[int]]) -> Interval:
    """Wilson's interval of the share of right runs, which are given by problem.

    Runs of one problem are alike, so that they count for fewer: for as many independent ones, between one a problem and
    all of them, as have the variance that the problems' own shares show (the design effect of Kish 1965).
    """
    count = sum(len(each) for each in runs)
    if not count:
        return Interval(0.0, 1.0)
    share = sum(map(sum, runs)) / count
    effective = float(len(runs))
    if len(runs) > 1:
        residuals = [sum(each) - share * len(each) for each in runs]
        variance = len(runs) / (len(runs) - 1) * math.fsum(each * each for each in residuals) / count**2
        effective = min(float(count), max(effective, share * (1 - share) / variance)) if variance else float(count)
    if share in (0.0, 1.0):  # nothing shows how alike the runs of a problem are
        effective = float(len(runs))
    return wilson(share * effective, effective)


class Ratio(NamedTuple):
    """A ratio of sums and its 95 % interval; None where nothing can show how far it is from the truth."""

    value: float
    interval: Interval | None


def over_clusters(clusters: Sequence[tuple[float, float]], *, most: float = math.inf) -> Ratio | None:
    """Sum of y over sum of x, given by cluster (y_k, x_k), x_k >= 0: tokens by thread, say, of each task.

    The variance is that of a ratio estimate from K clusters (Cochran 1977, ch. 6; the same that `over_problems` takes):
    K / (K - 1) sum (y_k - r x_k)^2 / (sum x)^2, with Student's t of K - 1. The interval is cut to [0, most]. None
    where there is nothing to divide by; without an interval where there is one cluster alone, or all are the same:
    nothing shows then how much they may differ.
    """
    weight = math.fsum(x for _, x in clusters)
    if weight <= 0:
        return None
    count = sum(x > 0 for _, x in clusters)
    ratio = math.fsum(y for y, _ in clusters) / weight
    if count < 2:
        return Ratio(ratio, None)
    squares = math.fsum((y - ratio * x) ** 2 for y, x in clusters)
    if not squares:
        return Ratio(ratio, None)
    half = _t(count - 1) * math.sqrt(count / (count - 1) * squares) / weight
    return Ratio(ratio, Interval(max(0.0, ratio - half), min(most, ratio + half)))


def over_seeds(shares: Sequence[float]) -> Interval | None:
    """Student's interval of the mean of one share for each seed, cut to [0, 1]; None for a single seed.

    It says how much the result depends on the seed, the problems held fixed; Wilson's says how much on the problems.
    """
    if len(shares) < 2:
        return None
    half = _t(len(shares) - 1) * stdev(shares) / math.sqrt(len(shares))
    mean = fmean(shares)
    return Interval(max(0.0, mean - half), min(1.0, mean + half))


def paired(differences: Sequence[float]) -> Interval | None:
    """The interval of the mean of differences on the same problems; None for fewer than two."""
    if len(differences) < 2:
        return None
    half = _t(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    mean = fmean(differences)
    return Interval(mean - half, mean + half)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that one of k of these n samples is correct (Chen et al. 2021), without bias.

    1 - prod_{i = n-correct+1..n} (1 - k/i). Raises ValueError for k above n.
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples, {correct} of them correct, is not defined")
    missed = 1.0
    for i in range(n - correct + 1, n + 1):
        missed *= max(0.0, 1.0 - k / i)  # below 0 only where fewer than k samples are wrong: then none can miss
    return 1.0 - missed


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's t; above ten degrees of freedom by Cornish and Fisher's expansion."""
    if freedom <= len(T):
        return T[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
