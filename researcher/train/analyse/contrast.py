"""Right against wrong on the same tasks: a hard task makes long thoughts and wrong answers both, and so a comparison
of all right threads with all wrong ones says as much of the tasks as of the thinking."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

from researcher.intervals import Interval, paired
from researcher.train.analyse.figures import Figures
from researcher.train.analyse.table import Behaviour


class Contrast(NamedTuple):
    """The mean over tasks of (mean of the right threads - mean of the wrong ones), with Student's interval; over the
    `tasks` that have both. Behaviours are units for 100 tokens of a thread."""

    figure: str
    tasks: int
    right: float
    wrong: float
    difference: float
    interval: Interval | None


def contrasts(figures: Iterable[Figures]) -> list[Contrast]:
    """The contrast of each figure; none where no task has right and wrong threads whose tokens are known."""
    tasks: dict[str, tuple[list[Figures], list[Figures]]] = {}
    for each in figures:
        if each.right is not None and each.tokens:
            tasks.setdefault(each.task, ([], []))[not each.right].append(each)
    both = [pair for pair in tasks.values() if pair[0] and pair[1]]
    if not both:
        return []
    found = []
    for name, of in _measured().items():
        pairs = [(fmean(map(of, right)), fmean(map(of, wrong))) for right, wrong in both]
        differences = [right - wrong for right, wrong in pairs]
        right, wrong = fmean(a for a, _ in pairs), fmean(b for _, b in pairs)
        found.append(Contrast(name, len(both), right, wrong, fmean(differences), paired(differences)))
    return found


def _measured() -> dict[str, Callable[[Figures], float]]:
    def rate(behaviour: Behaviour) -> Callable[[Figures], float]:
        return lambda each: 100.0 * each.shown[behaviour] / (each.tokens or 1)

    return {
        "tokens": lambda each: float(each.tokens or 0),
        "units": lambda each: float(each.units),
        "repeated 40-grams": lambda each: each.looped / each.loopable if each.loopable else 0.0,
        "repeated 4-grams": lambda each: each.again / each.grams if each.grams else 0.0,
        **{behaviour.value: rate(behaviour) for behaviour in Behaviour},
    }
