"""Recursive self-aggregation (Venkatraman et al. 2025): a population of answers, each made anew from a few of the last.

Round 1 is a plain sample of the model. Each member of a later round reads `k` members of the round before, drawn
without replacement by a seed of its own, and there is no verifier; the majority of the last round is the answer. A
member needs its own parents alone, so it begins when these have ended and waits for nobody else.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from researcher.errors import UserError
from researcher.strategies.base import Parameters, failure
from researcher.strategies.population import Member, Rounds, key_of
from researcher.strategies.prompts import answer_prompt
from researcher.strategies.revision import rewrite, settle
from researcher.strategies.votes import tally
from researcher.types import Work
from researcher.views import Plan, ThreadInfo, View

NAME = "rsa"


class RSA(Parameters):
    """Aggregates a population of answers recursively, and takes the majority of the last round."""

    name: Literal["rsa"] = "rsa"
    population: int = Field(default=16, ge=1, le=1000, description="members of each round (the authors' code: 16)")
    rounds: int = Field(
        default=10, ge=1, le=1000, description="rounds, the first sample included (the authors' code: 10)"
    )
    k: int = Field(default=4, ge=1, description="members of the last round that a new one reads (the authors' code: 4)")
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, description="sampling temperature (the authors' code: 1.0)")
    stop_when_verified: bool = Field(default=True, description="stop at an answer that the task's verifier accepts")

    @field_validator("k")
    @classmethod
    def _k_of_population(cls, k: int, info: ValidationInfo) -> int:
        if k > (population := info.data.get("population", k)):
            raise UserError(f"Strategy rsa: a member cannot read k={k} of population={population} others.")
        return k

    def plan(self, view: View) -> Plan:
        """Start every member whose parents have ended; vote when the last round is decided."""
        rounds = Rounds.of(view, NAME, size=self.population, rounds=self.rounds, k=self.k)
        if self.stop_when_verified and rounds.right:
            first = min(rounds.right, key=lambda thread: thread.order)
            answer = settle(view, [first], of=1, reason="the task's verifier accepts it")
            return Plan(answer=answer, cancel=tuple(view.in_flight))
        last = self._round(view, self.rounds - 1)
        unstarted = self.population - len(last) if view.budget.spendable else 0
        votes, pending = tally(last), unstarted + sum(thread.outcome is None for thread in last)
        if (len(last) == self.population and not pending) or votes.decided(pending):
            return self._vote(view, last, f"round {self.rounds}", limited=False)
        if view.budget.spendable and rounds.ready:
            works = [self._member(view, member, parents) for member, parents in rounds.ready[: view.free]]
            return Plan(start=tuple(works))
        if view.in_flight:
            return Plan()
        return self._end(view)

    def _member(self, view: View, member: Member, parents: list[ThreadInfo]) -> Work:
        key, group = key_of(NAME, member), f"{NAME}/{member[0]}"
        if parents:
            return rewrite(self, view, key, parents, group=group, temperature=self.temperature)
        prompt, tools = answer_prompt(view.task.question, view.task.tools), view.task.tools
        return self.work(view, key, prompt, group=group, tools=tools, temperature=self.temperature)

    def _round(self, view: View, number: int) -> list[ThreadInfo]:
        return list(view.graph.threads(f"{NAME}/{number}"))

    def _vote(self, view: View, members: list[ThreadInfo], which: str, *, limited: bool) -> Plan:
        votes = tally(members)
        if not votes.leader:
            return Plan(failure=f"{which}: {failure(members)}", limited=limited)
        answer = settle(view, votes.leader, of=votes.votes, reason=f"the majority of {which}")
        return Plan(answer=answer, cancel=tuple(view.in_flight), limited=limited)

    def _end(self, view: View) -> Plan:
        """The rest cannot be made: the budget is spent, or a round came to nothing that the next could read."""
        rounds = [members for number in range(self.rounds) if (members := self._round(view, number))]
        if view.budget.spendable:
            return Plan(failure=f"round {len(rounds)}: {failure(rounds[-1])}")
        whole = [number for number, members in enumerate(rounds) if len(members) == self.population] or [0]
        members = rounds[whole[-1]] if rounds else []
        return self._vote(view, members, f"round {whole[-1] + 1} of {self.rounds}", limited=True)
