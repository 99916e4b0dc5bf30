"""Refuses what cannot work, before anything is spent."""

from __future__ import annotations

from collections.abc import Collection

from researcher.errors import UserError
from researcher.protocols import Strategy
from researcher.types import Budget, Capabilities, Task

LARGEST = 2**53
"""Numbers beyond are not exact everywhere that reads the log."""


def check_seed(seed: int) -> None:
    """Raise UserError for a seed that the log and the servers cannot hold."""
    if not -LARGEST < seed < LARGEST:
        raise UserError(f"The seed {seed} is too large; give one between -2^53 and 2^53.")


def check_question(task: Task) -> None:
    """Raise UserError for an empty question."""
    if not task.question.strip():
        raise UserError("The question is empty; give one, for example: researcher run 'Who founded Velar?'")


def check_budget(budget: Budget, *, priced: bool) -> None:
    """Raise UserError for a limit of zero or less, or a cost limit that nothing could enforce."""
    for kind in ("tokens", "calls", "seconds", "cost"):
        limit = getattr(budget, kind)
        if limit is not None and not 0 < limit < LARGEST:
            raise UserError(f"A budget of {limit:g} {kind} cannot be kept to; give more than zero, or none at all.")
    if not 0.0 <= budget.reserve < 1.0:
        raise UserError(f"The reserve is a share of the budget in [0, 1), not {budget.reserve:g}.")
    if budget.cost is not None and not priced:
        raise UserError("A cost budget needs prices: set prompt and completion, in dollars for a million tokens.")


def check_tools(task: Task, available: Collection[str]) -> None:
    """Raise UserError for a tool that is not there."""
    for tool in task.tools:
        if tool not in available:
            have = ", ".join(available) or "none"
            raise UserError(
                f"The tool {tool!r} is not available here (there are: {have}); search and read need a documents folder."
            )


def check_capabilities(name: str, strategy: Strategy, task: Task, uri: str, capabilities: Capabilities) -> None:
    """Raise UserError that says which capability the server lacks and which servers have it."""
    for need in sorted(strategy.needs | ({"tools"} if task.tools else set())):
        if not getattr(capabilities, need, False):
            raise UserError(
                f"Strategy {name} needs {need} for this task, which {uri} does not offer; vLLM started with tool "
                f"parsing and log probabilities, and the embedded model, do."
            )
