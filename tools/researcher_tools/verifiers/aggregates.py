"""One score of the scores of a solution's steps, by name; what `prm:min` and `pooling` take."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence

from researcher.errors import UserError

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "prod": math.prod,
    "mean": lambda scores: math.fsum(scores) / len(scores),
}
"""`last` is the common default of process reward models (search-and-learn, Qwen2.5-Math-PRM)."""


def aggregate_of(verifier: str, name: str) -> Callable[[Sequence[float]], float]:
    """The aggregate of this name. Raises UserError with the nearest."""
    if name not in AGGREGATES:
        close = difflib.get_close_matches(name, AGGREGATES, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(AGGREGATES)}."
        raise UserError(f"The verifier {verifier} has no aggregate {name[:40]!r}; {hint}")
    return AGGREGATES[name]


def lines(solution: str) -> list[str]:
    """The steps of a whole solution: its lines that are not empty."""
    return [line.strip() for line in solution.splitlines() if line.strip()]
