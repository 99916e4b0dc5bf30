"""The charts of an analysis as SVG: `drawings(analysis)` gives them by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from researcher.charts import Series, Spot, chart
from researcher.intervals import Ratio
from researcher.train.analyse.breakdown import Row, breakdown
from researcher.train.analyse.figures import Figures
from researcher.train.analyse.report import Analysis
from researcher.train.analyse.table import Behaviour

_LAST = re.compile(r"^(?P<place>.*?) ?(?:\S*?)(?P<number>\d+)$")
PER_100 = "units for 100 tokens, 95 % interval over the tasks"


def drawings(found: Analysis) -> dict[str, str]:
    """`behaviours.svg` by correctness, and for each stage that trained its length, repetition, accuracy and behaviours
    over the versions of its weights."""
    made = {"behaviours.svg": by_correctness(found.figures)}
    for place, numbered in _stages(found.figures).items():
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", place).strip("-") or "training"
        made |= {f"{name}-{kind}.svg": text for kind, text in _over_training(place, numbered).items()}
    return made


def by_correctness(figures: Sequence[Figures]) -> str:
    """The behaviours of right and of wrong threads side by side."""
    rows = breakdown(figures, ("correctness",))
    series = [
        Series(f"{row.name} ({row.threads:,})", _spots([(place, row.rates[b]) for place, b in enumerate(Behaviour)]))
        for row in rows
    ]
    return chart(
        series,
        title="Behaviours in the thinking, by correctness",
        x_label="",
        y_label=PER_100,
        names=[b.value for b in Behaviour],
    )


def _stages(figures: Iterable[Figures]) -> dict[str, dict[int, list[Figures]]]:
    """The threads of each folder of which two or more numbered versions of the weights spoke, by number."""
    places: dict[str, dict[int, list[Figures]]] = {}
    for each in figures:
        if match := _LAST.match(each.version):
            place = each.source.removesuffix("/rollouts")
            places.setdefault(place, {}).setdefault(int(match["number"]), []).append(each)
    return {place: dict(sorted(found.items())) for place, found in sorted(places.items()) if len(found) > 1}


def _over_training(place: str, numbered: dict[int, list[Figures]]) -> dict[str, str]:
    rows = {number: breakdown(members)[0] for number, members in numbered.items()}
    by_right = {
        word: {
            number: breakdown(chosen)[0]
            for number, members in numbered.items()
            if (chosen := [each for each in members if each.right is right])
        }
        for word, right in (("right", True), ("wrong", False))
    }
    kinds: dict[str, tuple[str, Callable[[Row], Ratio | None]]] = {
        "length": ("tokens of a thread", lambda row: row.tokens),
        "repetition": ("share of 4-grams of words that came before", lambda row: row.again),
    }
    drawn = {
        kind: _chart(
            place,
            label,
            [_line("all", rows, of), *[_line(word, found, of) for word, found in by_right.items() if found]],
        )
        for kind, (label, of) in kinds.items()
    }
    lines = [_line(b.value, rows, _rate(b)) for b in Behaviour]
    drawn["behaviours"] = _chart(place, PER_100, lines)
    drawn["accuracy"] = _chart(place, "share of right threads", [_line("right", rows, lambda row: row.accuracy)])
    return drawn


def _rate(behaviour: Behaviour) -> Callable[[Row], Ratio | None]:
    return lambda row: row.rates[behaviour]


def _line(name: str, rows: dict[int, Row], of: Callable[[Row], Ratio | None]) -> Series:
    return Series(name, _spots([(number, of(row)) for number, row in rows.items()]))


def _spots(found: Iterable[tuple[int, Ratio | None]]) -> list[Spot]:
    """A spot for each figure there is; without an interval it is its own."""
    return [
        Spot(float(x), ratio.value, *(ratio.interval or (ratio.value, ratio.value)))
        for x, ratio in found
        if ratio is not None
    ]


def _chart(place: str, label: str, lines: Sequence[Series]) -> str:
    return chart(
        lines, title=f"{place}: over training", x_label="version of the weights", y_label=label, across="linear"
    )
