"""Finds a suite by name: `open_suite("countdown")`, `open_suite("jsonl:gsm8k.jsonl")`."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from researcher.errors import UserError
from researcher.evals.generated import Countdown, Documents, Foreign
from researcher.evals.gym import ReasoningGym
from researcher.evals.listed import Game24
from researcher.evals.local import LocalFile
from researcher.evals.problem import Problem, Suite

SUITES: dict[str, Callable[[str], Suite]] = {
    "countdown": Countdown,
    "game24": Game24,
    "documents": Documents,
    "foreign": Foreign,
    "reasoning-gym": ReasoningGym,
    "jsonl": LocalFile,
}
"""What stands before the colon, and what makes the suite from what stands behind it."""


def open_suite(spec: str) -> Suite:
    """The suite of this name. Raises UserError with the nearest names."""
    name, _, rest = spec.strip().partition(":")
    if name not in SUITES:
        close = difflib.get_close_matches(name, list(SUITES), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(SUITES)}."
        raise UserError(f"There is no suite {name!r}; {hint}")
    return SUITES[name](rest.strip())


def problems_of(suite: Suite, count: int) -> list[Problem]:
    """The first `count` problems. Raises UserError where the suite has fewer."""
    if count < 1:
        raise UserError(f"--count {count}: an evaluation needs one problem at least.")
    if suite.size is not None and count > suite.size:
        raise UserError(f"--count {count}: the suite {suite.name} has {suite.size} problems.")
    return suite.problems(count)
