"""Labels by wording: `labels("Wait, that's wrong.")` gives the behaviours that the unit shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from researcher.train.analyse.table import PATTERNS, SECOND_LOOKS, Behaviour
from researcher.train.analyse.units import is_code, units

Labels = frozenset[Behaviour]
MAX_UNIT = 2_000
"""Characters of a unit that are looked at: a sentence without an end is repetition, not thought."""


class Labelled(NamedTuple):
    """A thought's units with their behaviours, and how often it takes a second look by the word ("wait")."""

    units: tuple[str, ...]
    labels: tuple[Labels, ...]
    second_looks: int


def labels(unit: str) -> Labels:
    """The behaviours of one unit by its wording; none for code. That a way fails ("so this doesn't work") is turning
    back, and no conclusion besides."""
    if is_code(unit):
        return frozenset()
    text = unit[:MAX_UNIT].replace("’", "'")
    found = frozenset(pattern.behaviour for pattern in PATTERNS if pattern.wording.search(text))
    return found - {Behaviour.SUMMING_UP} if Behaviour.BACKTRACKING in found else found


def labelled(thought: str) -> Labelled:
    """The units of the thought and what each shows."""
    found = tuple(units(thought))
    return Labelled(found, tuple([labels(unit) for unit in found]), len(SECOND_LOOKS.findall(thought)))


def counts(given: Iterable[Labels]) -> dict[Behaviour, int]:
    """How many units show each behaviour; every behaviour has a number."""
    found = Counter(behaviour for each in given for behaviour in each)
    return {behaviour: found[behaviour] for behaviour in Behaviour}


class Agreement(NamedTuple):
    """Labels of one behaviour against those taken for right. `kappa` is Cohen's; None where chance explains all."""

    behaviour: Behaviour
    units: int
    wanted: int
    found: int
    both: int

    @property
    def precision(self) -> float | None:
        """The share of found ones that are right."""
        return self.both / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """The share of right ones that are found."""
        return self.both / self.wanted if self.wanted else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960): (p_o - p_e) / (1 - p_e)."""
        if not self.units:
            return None
        a, b = self.wanted / self.units, self.found / self.units
        same = 1 - (self.wanted + self.found - 2 * self.both) / self.units
        chance = a * b + (1 - a) * (1 - b)
        return None if chance == 1 else (same - chance) / (1 - chance)


def agreement(right: Sequence[Labels], found: Sequence[Labels]) -> list[Agreement]:
    """How labels agree with those taken for right, unit by unit, for each behaviour."""
    pairs = list(zip(right, found, strict=True))
    return [
        Agreement(
            each,
            len(pairs),
            sum(each in a for a, _ in pairs),
            sum(each in b for _, b in pairs),
            sum(each in a and each in b for a, b in pairs),
        )
        for each in Behaviour
    ]
