"""The suite `game24`: the list of Tree of Thoughts in its own numbering, `game24:900-999` being its test puzzles."""

from __future__ import annotations

import re
from collections.abc import Mapping

from researcher.errors import UserError
from researcher.evals.game24 import TEST, puzzles
from researcher.evals.problem import Problem
from researcher.protocols import Verifier
from researcher.train.embedded.tasks.countdown import PHRASINGS, is_held_out

HELD_OUT = "held-out"
_RANGE = re.compile(r"(\d+)-(\d+)")


class Game24:
    """Puzzles by their numbers in the list, the last counted in; with `:held-out` only those that the embedded model's
    training never draws, which is every second one."""

    verifiers: Mapping[str, Verifier] = {}

    def __init__(self, spec: str = "") -> None:
        span, _, more = spec.partition(":")
        if span == HELD_OUT and not more:
            span, more = "", HELD_OUT
        match = _RANGE.fullmatch(span or f"{TEST[0]}-{TEST[-1]}")
        last = len(puzzles()) - 1
        if match is None or more not in ("", HELD_OUT) or not int(match[1]) <= int(match[2]) <= last:
            raise UserError(
                f"There is no suite game24:{spec}; write game24 (which is {TEST[0]}-{TEST[-1]}), game24:FIRST-LAST "
                f"with numbers up to {last}, or either with :{HELD_OUT}."
            )
        wanted = range(int(match[1]), int(match[2]) + 1)
        self.held_out = more == HELD_OUT
        self.name = f"game24:{match[0]}" + (f":{HELD_OUT}" if self.held_out else "")
        self._numbers = [i for i in wanted if not self.held_out or is_held_out(puzzles()[i], 24)]
        self._rest = sorted(set(wanted) - set(self._numbers))

    @property
    def size(self) -> int:
        """How many puzzles there are."""
        return len(self._numbers)

    def problems(self, count: int) -> list[Problem]:
        """The first puzzles of the range."""
        return [_problem(i) for i in self._numbers[:count]]

    def others(self, count: int) -> list[Problem]:
        """The first puzzles of the range that `:held-out` leaves to trainings; none without it."""
        return [_problem(i) for i in self._rest[:count]]


def _problem(i: int) -> Problem:
    numbers = list(puzzles()[i])
    question = PHRASINGS[0].format(numbers=", ".join(map(str, numbers)), target=24)
    return Problem(str(i), question, "game24", data={"numbers": numbers, "target": 24}, rule=True)
