"""What the results of an evaluation say: `summarise(results)` gives a row for each strategy and budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from researcher.evals.record import Result
from researcher.intervals import Interval, over_problems, over_seeds, paired, pass_at_k
from researcher.types import VerdictStatus

KS = (1, 2, 4, 8, 16, 32, 64, 128)


class PassAtK(NamedTuple):
    """pass@k on average over the `runs` that have k samples or more."""

    k: int
    value: float
    runs: int


class Row(NamedTuple):
    """One strategy at one budget. Shares are of the verified runs; tokens, calls and seconds are means of a run.

    `wilson` is over the problems, whose runs are alike, `seeds` over the seeds' means. `cancelled`: the share of
    tokens that threads had used which were then stopped. `hits`: the share of prompt tokens that were cached.
    """

    strategy: str
    budget: int | None
    runs: int
    accuracy: float | None
    wilson: Interval
    seeds: Interval | None
    unverified: int
    unanswered: int
    limited: int
    prompt: float
    completion: float
    calls: float
    seconds: float
    hits: float
    threads: float
    cancelled: float
    cancelled_threads: float
    merged: float
    unparsable: float
    truncated: float
    failures: dict[str, int]
    passes: tuple[PassAtK, ...]

    @property
    def interval(self) -> Interval:
        """Over seeds, or Wilson's where there is one seed alone."""
        return self.seeds or self.wilson


class Winner(NamedTuple):
    """The most accurate strategy at a budget, and by how much it leads on the same problems and seeds."""

    budget: int | None
    strategy: str
    accuracy: float
    second: str | None
    lead: float | None
    lead_interval: Interval | None


def summarise(results: Iterable[Result]) -> list[Row]:
    """A row for each strategy and budget, in the order in which they first come."""
    groups: dict[tuple[str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.strategy, result.budget), []).append(result)
    return [row(strategy, budget, group) for (strategy, budget), group in groups.items()]


def row(strategy: str, budget: int | None, results: Sequence[Result]) -> Row:
    """The row of these results, which are all of one strategy and budget."""
    verified = [result for result in results if result.status is not VerdictStatus.UNVERIFIED]
    right = sum(_right(result) for result in verified)
    prompt, tokens = sum(r.prompt for r in results), sum(r.prompt + r.completion for r in results)
    threads = sum(sum(result.threads.values()) for result in results)
    failures: Counter[str] = Counter()
    for result in results:
        failures.update(result.failures)
    return Row(
        strategy=strategy,
        budget=budget,
        runs=len(results),
        accuracy=right / len(verified) if verified else None,
        wilson=over_problems(_by_problem(verified)),
        seeds=over_seeds(_by_seed(verified)),
        unverified=len(results) - len(verified),
        unanswered=sum(result.answer is None and not result.broken for result in results),
        limited=sum(result.limit is not None for result in results),
        prompt=prompt / len(results),
        completion=fmean(result.completion for result in results),
        calls=fmean(result.calls for result in results),
        seconds=fmean(result.seconds for result in results),
        hits=_share(sum(result.cached for result in results), prompt),
        threads=threads / len(results),
        cancelled=_share(sum(result.cancelled_tokens for result in results), tokens),
        cancelled_threads=_share(sum(result.threads.get("cancelled", 0) for result in results), threads),
        merged=fmean(result.merged for result in results),
        unparsable=fmean(result.unparsable for result in results),
        truncated=fmean(result.truncated for result in results),
        failures=dict(failures),
        passes=tuple(_passes(verified)),
    )


def winners(results: Iterable[Result]) -> list[Winner]:
    """Which strategy is the most accurate at each budget, and whether its lead is more than chance."""
    budgets: dict[int | None, dict[str, list[Result]]] = {}
    for result in results:
        budgets.setdefault(result.budget, {}).setdefault(result.strategy, []).append(result)
    return [winner for budget, groups in budgets.items() if (winner := _winner(budget, groups))]


def _winner(budget: int | None, groups: dict[str, list[Result]]) -> Winner | None:
    rows = [row(strategy, budget, group) for strategy, group in groups.items()]
    ranked = sorted((r for r in rows if r.accuracy is not None), key=lambda r: -(r.accuracy or 0.0))
    if not ranked:
        return None
    first = ranked[0]
    assert first.accuracy is not None
    if len(ranked) == 1:
        return Winner(budget, first.strategy, first.accuracy, None, None, None)
    second = ranked[1].strategy
    differences = _differences(groups[first.strategy], groups[second])
    lead = fmean(differences) if differences else None
    return Winner(budget, first.strategy, first.accuracy, second, lead, paired(differences))


def _differences(first: Iterable[Result], second: Iterable[Result]) -> list[float]:
    """For each problem that both solved or missed under the same seeds, the difference of their shares."""
    other = {(r.problem, r.seed): _right(r) for r in second if r.status is not VerdictStatus.UNVERIFIED}
    by_problem: dict[str, list[int]] = {}
    for result in first:
        key = result.problem, result.seed
        if result.status is not VerdictStatus.UNVERIFIED and key in other:
            by_problem.setdefault(result.problem, []).append(_right(result) - other[key])
    return [fmean(values) for values in by_problem.values()]


def _by_seed(results: Iterable[Result]) -> list[float]:
    seeds: dict[int, list[int]] = {}
    for result in results:
        seeds.setdefault(result.seed, []).append(_right(result))
    return [fmean(values) for values in seeds.values()]


def _by_problem(results: Iterable[Result]) -> list[list[int]]:
    problems: dict[str, list[int]] = {}
    for result in results:
        problems.setdefault(result.problem, []).append(_right(result))
    return list(problems.values())


def _passes(results: Sequence[Result]) -> Iterable[PassAtK]:
    for k in KS:
        counted = [
            pass_at_k(len(graded), sum(s.status is VerdictStatus.CORRECT for s in graded), k)
            for result in results
            if len(graded := [s for s in result.samples if s.status is not VerdictStatus.UNVERIFIED]) >= k
        ]
        if counted:
            yield PassAtK(k, fmean(counted), len(counted))


def _right(result: Result) -> int:
    return int(result.status is VerdictStatus.CORRECT)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
