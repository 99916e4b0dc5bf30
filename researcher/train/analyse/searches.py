"""The searches of many runs together: `searches(structures)` gives means of a run, by strategy and outcome."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from researcher.intervals import Ratio, over_clusters
from researcher.train.analyse.structure import COUNTS, Structure


class SearchRow(NamedTuple):
    """The runs of one strategy (and, where known, right or wrong): means of a run, over tasks."""

    strategy: str
    right: str
    runs: int
    tasks: int
    means: dict[str, Ratio | None]


def searches(structures: Iterable[Structure]) -> list[SearchRow]:
    """A row for each strategy and outcome of its runs."""
    groups: dict[tuple[str, str], list[Structure]] = {}
    for each in structures:
        right = "unknown" if each.right is None else "right" if each.right else "wrong"
        groups.setdefault((each.strategy, right), []).append(each)
    return [_row(strategy, right, groups[strategy, right]) for strategy, right in sorted(groups)]


def _row(strategy: str, right: str, members: list[Structure]) -> SearchRow:
    tasks: dict[str, list[Structure]] = {}
    for each in members:
        tasks.setdefault(each.task, []).append(each)
    means = {
        name: over_clusters([(sum(getattr(each, name) for each in group), len(group)) for group in tasks.values()])
        for name in COUNTS
    }
    return SearchRow(strategy, right, len(members), len(tasks), means)
