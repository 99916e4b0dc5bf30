"""Graph of thoughts (Besta et al. 2023): a plan of operations that generates, scores, joins and improves thoughts.

The plan is given beforehand; what it can do at once runs at once. A thought is one thread's answer. Equal answers are
one thought: they are worked on once, and count by the lanes that brought them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from researcher.strategies.base import Parameters, failure
from researcher.strategies.operations import (
    JUDGING,
    MAKING,
    Aggregate,
    AnyOperation,
    Generate,
    KeepBest,
    KeepValid,
    Score,
    ValidateAndImprove,
    check_order,
    judged_later,
    label,
)
from researcher.strategies.prompts import answer_prompt
from researcher.strategies.revision import is_right, rewrite, settle, value
from researcher.strategies.thoughts import Job, Judge, Thoughts
from researcher.types import Task, Work
from researcher.views import Plan, ThreadInfo, View

NAME = "graph"
PLAN = (Generate(n=8), Score(), KeepBest(n=3), Aggregate(n=4), ValidateAndImprove(rounds=2), Score())
OPERATIONS = (
    "the plan, a list of {op: ...}: generate (n), score, keep_best (n), keep_valid, aggregate (n, of), improve, "
    "validate_and_improve (rounds)"
)
VALID = 0.5
"""The score from which a thought counts as right, where only a scorer can say."""


class GraphOfThoughts(Parameters):
    """Carries out a plan of operations, and takes the best thought that comes out at its end.

    The default plan aggregates the three best of eight answers in four ways, as the paper's plans do (generate, score,
    keep the best, aggregate, score), and improves what is not right yet.
    """

    name: Literal["graph"] = "graph"
    operations: tuple[AnyOperation, ...] = Field(default=PLAN, min_length=1, description=OPERATIONS)
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, description="sampling temperature (the authors' code: 1.0)")
    scorer: str = Field(default="", description="verifier that scores thoughts; none: the task's verifier alone")
    stop_when_verified: bool = Field(default=True, description="stop at an answer that the task's verifier accepts")

    @field_validator("operations")
    @classmethod
    def _can_be_carried_out(cls, operations: tuple[AnyOperation, ...]) -> tuple[AnyOperation, ...]:
        check_order(operations)
        return operations

    @property
    def needs_verdicts(self) -> bool:
        """Whether it cannot do without a verifier of the task."""
        return not self.scorer and any(isinstance(operation, JUDGING) for operation in self.operations)

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works name."""
        return (self.scorer,) if self.scorer else ()

    def plan(self, view: View) -> Plan:
        """Start every thread whose thoughts are there; take the best thought when all lanes have ended."""
        if self.needs_verdicts and view.task.verifier is None:
            first = next(n for n, operation in enumerate(self.operations) if isinstance(operation, JUDGING))
            return Plan(failure=f"{label(self.operations, first)} needs a verifier or a scorer, and there is neither")
        thoughts = Thoughts.of(view, NAME, self.operations, self._judge(view.task))
        if self.stop_when_verified and thoughts.right:
            best = min(thoughts.right, key=lambda thread: thread.order)
            answer = settle(view, [best], of=1, reason="the task's verifier accepts it")
            return Plan(answer=answer, cancel=tuple(view.in_flight))
        if len(thoughts.at[-1]) == thoughts.widths[-1]:
            return self._best(view, thoughts, len(self.operations) - 1, limited=False)
        if thoughts.wanted and view.budget.spendable:
            jobs = sorted(thoughts.wanted, key=lambda job: job.key)[: view.free]
            return Plan(start=tuple(self._work(view, job) for job in jobs))
        if view.in_flight:
            return Plan()
        reached = [number for number, lanes in enumerate(thoughts.at) if any(lanes.values())]
        return self._best(view, thoughts, reached[-1] if reached else 0, limited=True)

    def _judge(self, task: Task) -> Judge:
        def score(thread: ThreadInfo) -> float | None:
            return value(thread, self.scorer)

        return Judge(score, is_right if task.verifier is not None else lambda thread: (score(thread) or 0.0) >= VALID)

    def _work(self, view: View, job: Job) -> Work:
        key, group = f"{NAME}/{job.number}/{job.place}/{job.tries}", f"{NAME}/{job.number}"
        judged = judged_later(self.operations, job.number, verified=view.task.verifier is not None)
        scorer = self.scorer if judged else ""
        if job.reads:
            return rewrite(self, view, key, job.reads, group=group, temperature=self.temperature, scorer=scorer)
        prompt, tools = answer_prompt(view.task.question, view.task.tools), view.task.tools
        return self.work(view, key, prompt, group=group, tools=tools, temperature=self.temperature, scorer=scorer)

    def _best(self, view: View, thoughts: Thoughts, number: int, *, limited: bool) -> Plan:
        """The answer with the best score; of equal ones, and where the plan scores none of them, the most frequent."""
        lanes = sorted((t for t in thoughts.at[number].values() if t is not None), key=lambda thread: thread.order)
        if not lanes:
            return Plan(failure=self._why_none(view, thoughts), limited=limited)
        made = max(n for n in range(number + 1) if isinstance(self.operations[n], MAKING))
        judging = [n for n, each in enumerate(self.operations) if n >= made and isinstance(each, JUDGING)]
        values = {thread.key: self._value(thread) for thread in lanes} if judging else {}
        scored = any(each is not None for each in values.values())
        if judging and not scored and not limited:
            return Plan(failure=self._unscored(view, judging[-1], len(lanes)))
        classes: dict[str | None, list[ThreadInfo]] = {}
        for thought in lanes:
            classes.setdefault(thought.canonical, []).append(thought)

        def merit(members: list[ThreadInfo]) -> tuple[float, int, int]:
            return max(values.get(t.key) or 0.0 for t in members), len(members), -members[0].order

        of, which = len(lanes), "best" if scored else "most frequent"
        reason = f"the {which} of {of} thoughts after {label(self.operations, number)}"
        best = max(classes.values(), key=merit)
        return Plan(answer=settle(view, best, of=of, reason=reason), limited=limited)

    def _value(self, thread: ThreadInfo) -> float | None:
        """The scorer's score, else what the task's verifier says."""
        return value(thread, self.scorer) if thread.score is not None else value(thread, "")

    def _unscored(self, view: View, number: int, answers: int) -> str:
        by = self.scorer or view.task.verifier
        return f"{label(self.operations, number)}: {by} scored none of {answers} answers"

    def _why_none(self, view: View, thoughts: Thoughts) -> str:
        """Which operation left no thought, and why."""
        empty = next(n for n, lanes in enumerate(thoughts.at) if not any(lanes.values()))
        before = len([t for t in thoughts.at[empty - 1].values() if t]) if empty else 0
        match self.operations[empty]:
            case Score():
                return self._unscored(view, empty, before)
            case KeepValid():
                why = f"none of {before} answers is right"
            case _:
                why = failure(view.graph.threads(f"{NAME}/{empty}"))
        return f"{label(self.operations, empty)}: {why}"
