"""Figures of many thoughts by what they have in common: `breakdown(figures, ("correctness",))`.

Threads on one task are alike, so every interval is over the tasks, as many threads as each may have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from researcher.errors import UserError
from researcher.intervals import Ratio, over_clusters, over_problems
from researcher.train.analyse.figures import Figures
from researcher.train.analyse.table import Behaviour

UNKNOWN = "unknown"


def _correctness(figures: Figures) -> str:
    return UNKNOWN if figures.right is None else "right" if figures.right else "wrong"


def iteration(figures: Figures) -> str:
    """The stage and the version of the weights: `01-rl v3`; what a stage evaluates by is apart from its rollouts."""
    place = figures.source.removesuffix("/rollouts")
    return f"{place} {figures.version}" if figures.version else place


KEYS: Mapping[str, Callable[[Figures], str]] = {
    "correctness": _correctness,
    "iteration": iteration,
    "strategy": lambda figures: figures.strategy or UNKNOWN,
    "suite": lambda figures: figures.suite or UNKNOWN,
    "source": lambda figures: figures.source,
    "model": lambda figures: figures.model or UNKNOWN,
    "version": lambda figures: figures.version or UNKNOWN,
    "outcome": lambda figures: figures.outcome or "open",
    "task": lambda figures: figures.task,
}


def keys(text: str) -> list[tuple[str, ...]]:
    """`correctness,iteration+correctness` as the breakdowns that are wanted. Raises UserError for an unknown one."""
    wanted: list[tuple[str, ...]] = []
    for part in text.split(","):
        names = tuple([name.strip() for name in part.split("+")])
        for name in names:
            if name not in KEYS:
                close = difflib.get_close_matches(name, KEYS, 1, 0.5)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(KEYS)}."
                raise UserError(f"--by {text}: there is nothing called {name!r} to go by; {hint}")
        if names not in wanted:
            wanted.append(names)
    return wanted


class Row(NamedTuple):
    """The figures of the threads that share `labels`; each with its interval, None where nothing can be said.

    `tokens`, `units` and `words` are means of a thread; `accuracy`, `cut` (ran into its limit) and `shown` (has the
    behaviour at all) shares of threads, accuracy of the judged ones; `looped` the share of tokens in a repeated
    40-gram, `again` that of repeated 4-grams of words; `rates` units with the behaviour for 100 tokens.
    """

    labels: tuple[str, ...]
    threads: int
    tasks: int
    judged: int
    accuracy: Ratio | None
    tokens: Ratio | None
    units: Ratio | None
    words: Ratio | None
    cut: Ratio | None
    looped: Ratio | None
    again: Ratio | None
    second_looks: Ratio | None
    rates: dict[Behaviour, Ratio | None]
    shown: dict[Behaviour, Ratio | None]

    @property
    def name(self) -> str:
        """Its labels as one."""
        return ", ".join(self.labels)


def breakdown(figures: Iterable[Figures], by: Sequence[str] = ()) -> list[Row]:
    """A row for each group, in natural order ("v2" before "v10"); of all threads without `by`."""
    groups: dict[tuple[str, ...], list[Figures]] = {}
    for each in figures:
        groups.setdefault(tuple([KEYS[key](each) for key in by]), []).append(each)
    return [row(labels, groups[labels]) for labels in sorted(groups, key=lambda labels: [*map(natural, labels)])]


def natural(text: str) -> list[tuple[int, str]]:
    """What sorts numbers in a text as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def row(labels: tuple[str, ...], members: Sequence[Figures]) -> Row:
    """The figures of these threads together."""
    tasks: dict[str, list[Figures]] = {}
    for each in members:
        tasks.setdefault(each.task, []).append(each)
    by_task = list(tasks.values())

    def ratio(over: Callable[[Figures], tuple[float, float] | None], most: float = float("inf")) -> Ratio | None:
        """The sum of the first over the sum of the second; threads without are left out."""
        found = [[pair for each in group if (pair := over(each)) is not None] for group in by_task]
        return over_clusters([(sum(y for y, _ in f), sum(x for _, x in f)) for f in found if f], most=most)

    def mean(of: Callable[[Figures], int | None]) -> Ratio | None:
        return ratio(lambda each: None if (value := of(each)) is None else (value, 1.0))

    def per_100(of: Callable[[Figures], int]) -> Ratio | None:
        return ratio(lambda each: None if each.tokens is None else (100.0 * of(each), each.tokens))

    return Row(
        labels=labels,
        threads=len(members),
        tasks=len(tasks),
        judged=sum(each.right is not None for each in members),
        accuracy=share([[f.right for f in group if f.right is not None] for group in by_task]),
        tokens=mean(lambda each: each.tokens),
        units=mean(lambda each: each.units),
        words=mean(lambda each: each.words),
        cut=share([[each.cut for each in group] for group in by_task]),
        looped=ratio(lambda each: (each.looped, each.loopable), 1.0),
        again=ratio(lambda each: (each.again, each.grams), 1.0),
        second_looks=per_100(lambda each: each.second_looks),
        rates={b: per_100(_count(b)) for b in Behaviour},
        shown={b: share([[each.shown[b] > 0 for each in group] for group in by_task]) for b in Behaviour},
    )


def _count(behaviour: Behaviour) -> Callable[[Figures], int]:
    return lambda each: each.shown[behaviour]


def share(by_task: Sequence[Sequence[bool]]) -> Ratio | None:
    """The share of True with Wilson's interval over the tasks; None where there is nothing."""
    known = [list(map(int, group)) for group in by_task if group]
    if not known:
        return None
    return Ratio(sum(map(sum, known)) / sum(map(len, known)), over_problems(known))
