"""What `researcher run` was asked to do, resolved and checked before anything starts or costs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from researcher_tools.verifiers import get_verifier

from researcher.config import Settings
from researcher.engine.preflight import check_budget
from researcher.errors import UserError
from researcher.models.uri import parse_model_uri
from researcher.strategies.load import load_strategy, strategy_class
from researcher.types import Task

DOCUMENT_TOOLS = ("search", "read")
WIDTHS = ("threads", "n", "samples")
"""What strategies call their number of threads."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task with all the choices made."""

    task: Task
    strategy: str
    params: dict[str, Any]
    settings: Settings
    documents: Path | None

    def resolved(self) -> dict[str, Any]:
        """Every choice, by the names of the configuration; there is no key among them."""
        task = msgspec.to_builtins(self.task)
        settings = self.settings
        return {
            "question": self.task.question,
            "model": settings.model,
            "home": str(settings.home),
            "docs": None if self.documents is None else str(self.documents),
            "strategy": self.strategy,
            "tools": list(self.task.tools),
            "verifier": self.task.verifier,
            "data": task.get("data", {}),
            "seed": settings.seed,
            "budget": settings.budget.model_dump(),
            "params": self.params,
        }


def resolve(
    question: str | None,
    settings: Settings,
    *,
    gold: str | None = None,
    numbers: str | None = None,
    target: int | None = None,
) -> Job:
    """The job for a question, or for a Countdown problem given by its numbers. Raises UserError."""
    data = _countdown(numbers, target)
    if question == "-":
        question = sys.stdin.read()
    if question is None and data:
        shown = ", ".join(map(str, data["numbers"]))
        question = f"Use the numbers {shown} once each with + - * / to make {data['target']}."
    if question is None or not question.strip():
        raise UserError("the question is empty: write it after `researcher run`, in quotes")
    documents = settings.docs
    tools = settings.tools
    if tools is None:
        tools = list(DOCUMENT_TOOLS) if documents is not None else []
    elif documents is None and (wanting := [name for name in tools if name in DOCUMENT_TOOLS]):
        raise UserError(f"the tool {wanting[0]} needs a folder of documents: add --docs DIR")
    if settings.model is not None:
        parse_model_uri(settings.model)
    verifier = settings.verifier or ("countdown" if data else "exact" if gold is not None else None)
    if verifier is not None:
        get_verifier(verifier)
    check_budget(settings.budget.to_budget(), priced=settings.prices is not None)
    strategy = settings.strategy or ("research" if documents is not None else "vote")
    params = dict(settings.params)
    if settings.threads is not None:
        params.setdefault(_width(strategy), settings.threads)
    load_strategy(strategy, params)
    return Job(
        task=Task(question=question.strip(), tools=tuple(tools), verifier=verifier, gold=gold, data=data),
        strategy=strategy,
        params=params,
        settings=settings,
        documents=documents,
    )


def _width(strategy: str) -> str:
    """The parameter of a strategy that says how many threads it starts."""
    fields = strategy_class(strategy).model_fields
    for name in WIDTHS:
        if name in fields:
            return name
    raise UserError(
        f"--threads: the strategy {strategy} has no number of threads; it takes {', '.join(sorted(fields))}"
    )


def _countdown(numbers: str | None, target: int | None) -> dict[str, Any]:
    if numbers is None and target is None:
        return {}
    if numbers is None or target is None:
        raise UserError("a Countdown problem needs both --numbers 3,5,8 and --target 24")
    try:
        values = [int(part) for part in numbers.replace(" ", ",").split(",") if part]
    except ValueError:
        raise UserError(f"--numbers {numbers}: write whole numbers with commas, like 3,5,8") from None
    if not values:
        raise UserError("--numbers is empty: write whole numbers with commas, like 3,5,8")
    return {"numbers": values, "target": target}
