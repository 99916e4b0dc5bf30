"""`Problem`: a question with what judges its answers; `Grader` judges them after the run, which never sees the gold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from researcher_tools.verifiers import get_verifier

from researcher.protocols import Verifier
from researcher.types import Task, Verdict


class Problem(NamedTuple):
    """A question of a suite. `id` is unique there, and names the same problem in every version of the suite's data."""

    id: str
    question: str
    grader: str
    """The verifier that judges answers: a name that is registered, or one of the suite's own."""
    gold: str | None = None
    data: Mapping[str, Any] = {}
    """What the question says itself, for a rule to check: the run may see it."""
    hidden: Mapping[str, Any] = {}
    """What only the grader may see."""
    rule: bool = False
    """Whether the grader needs nothing hidden, so that a run may have it as its verifier."""
    texts: Mapping[str, str] = {}
    """The documents the question is about, by file name."""

    @property
    def tools(self) -> tuple[str, ...]:
        """What a run may use."""
        return ("search", "read") if self.texts else ()

    def task(self, *, blind: bool = False) -> Task:
        """What a run is given: no gold, nothing hidden, and a verifier only where it is a rule (unless `blind`)."""
        return Task(
            question=self.question,
            tools=self.tools,
            verifier=self.grader if self.rule and not blind else None,
            data=dict(self.data),
        )


class Suite(Protocol):
    """Problems of one kind."""

    @property
    def name(self) -> str:
        """The suite as the command line names it."""
        ...

    @property
    def size(self) -> int | None:
        """How many problems there are; None: any number is generated."""
        ...

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        """Verifiers of its own, by name."""
        ...

    def problems(self, count: int) -> list[Problem]:
        """The first `count` problems, which are the same for every larger count. Raises UserError."""
        ...


class Grader:
    """Judges answers with the whole of what is known; equal answers to one problem are judged once."""

    def __init__(self, own: Mapping[str, Verifier]) -> None:
        self._known = dict(own)
        self._verdicts: dict[tuple[str, str], Verdict] = {}

    def verifier(self, name: str) -> Verifier:
        """The verifier of this name. Raises UserError for an unknown one."""
        if name not in self._known:
            self._known[name] = get_verifier(name)
        return self._known[name]

    async def grade(self, problem: Problem, answer: str) -> Verdict:
        """The verdict on an answer: correct, wrong, or unverified where the check could not run."""
        key = problem.id, answer
        if key not in self._verdicts:
            task = Task(
                question=problem.question,
                verifier=problem.grader,
                gold=problem.gold,
                data={**problem.data, **problem.hidden},
            )
            self._verdicts[key] = await self.verifier(problem.grader).verify(task, answer)
        return self._verdicts[key]

    async def aclose(self) -> None:
        """Close what the verifiers hold open."""
        for verifier in self._known.values():
            if (close := getattr(verifier, "aclose", None)) is not None:
                await close()
