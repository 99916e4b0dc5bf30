"""Sequential revision: an attempt, then rounds that check it and keep or better it, in one or several chains.

Each revision is a fresh thread that reads the attempt before it and nothing else, so a conversation never grows.
With `chains=3, temperatures=(0.3, 0.6, 1.0)` it has the verification rounds of optillm's MARS: a revision that leaves
the answer as it was is a pass, and two passes in a row, or five rounds, end a chain.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from researcher.errors import UserError
from researcher.strategies.base import Parameters, failure
from researcher.strategies.chains import Chains
from researcher.strategies.prompts import answer_prompt
from researcher.strategies.revision import is_right, rewrite, settle, value
from researcher.strategies.votes import tally
from researcher.types import Outcome, Work
from researcher.views import Plan, ThreadInfo, View

NAME = "refine"
Pick = Literal["last", "majority", "best"]


class Refine(Parameters):
    """Revises until an answer stands.

    `pick`: `last` takes the last answer of each chain, `majority` the most frequent of all attempts, `best` the one
    with the highest score (the scorer's, or without a scorer that of the task's verifier).
    """

    name: Literal["refine"] = "refine"
    chains: int = Field(default=1, ge=1, le=10_000, description="chains of revisions, side by side (MARS: 3)")
    rounds: int = Field(default=5, ge=1, le=1000, description="revisions a chain may have (MARS: 5)")
    patience: int = Field(
        default=2, ge=1, description="revisions in a row that keep the answer and so end a chain (MARS: 2 passes)"
    )
    temperature: float = Field(default=0.7, ge=0.0, le=2.0, description="sampling temperature")
    temperatures: tuple[float, ...] = Field(
        default=(), description="one for each chain in turn, instead of `temperature` (MARS: 0.3, 0.6, 1.0)"
    )
    scorer: str = Field(default="", description="verifier that scores each attempt, for pick=best")
    pick: Pick | None = Field(
        default=None, description="last, majority or best; by default best where there is a scorer, else last"
    )
    stop_when_verified: bool = Field(default=True, description="stop at an answer that the task's verifier accepts")

    @field_validator("temperatures")
    @classmethod
    def _one_for_each_chain(cls, temperatures: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if not all(0.0 <= temperature <= 2.0 for temperature in temperatures):
            raise UserError("Strategy refine: a temperature is between 0 and 2.")
        if len(temperatures) > (chains := info.data.get("chains", len(temperatures))):
            raise UserError(f"Strategy refine: {len(temperatures)} temperatures are too many for chains={chains}.")
        return temperatures

    @field_validator("pick")
    @classmethod
    def _the_scorer_is_used(cls, pick: Pick | None, info: ValidationInfo) -> Pick | None:
        if info.data.get("scorer") and pick not in (None, "best"):
            raise UserError(f"Strategy refine: nothing would use the scorer with pick={pick}; give pick=best.")
        return pick

    @property
    def picks(self) -> Pick:
        """Which answer is taken."""
        return self.pick or ("best" if self.scorer else "last")

    @property
    def needs_verdicts(self) -> bool:
        """Whether it cannot do without a verifier of the task."""
        return self.picks == "best" and not self.scorer

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works name."""
        return (self.scorer,) if self.scorer else ()

    def plan(self, view: View) -> Plan:
        """Start the next thread of each chain that waits; pick an answer when none does."""
        chains = Chains.of(view, NAME, self.chains, self._over)
        if self.stop_when_verified and chains.right:
            first = min(chains.right.values(), key=lambda thread: thread.order)
            answer = settle(view, [first], of=1, reason="the task's verifier accepts it")
            return Plan(answer=answer, cancel=tuple(view.in_flight))
        if chains.idle and view.budget.spendable:
            return Plan(start=tuple(self._next(view, chains, number) for number in chains.idle[: view.free]))
        if view.in_flight:
            return Plan()
        return self._pick(view, chains, limited=bool(chains.idle))

    def _over(self, attempts: list[ThreadInfo]) -> bool:
        """Whether this chain, whose threads have ended, needs no revision more."""
        if len(attempts) > self.rounds or attempts[-1].outcome in (Outcome.FAILED, Outcome.CANCELLED):
            return True
        if self.stop_when_verified and is_right(attempts[-1]):
            return True
        last = [attempt.canonical for attempt in attempts[-self.patience - 1 :]]
        return len(last) > self.patience and last[0] is not None and len(set(last)) == 1

    def _next(self, view: View, chains: Chains, number: int) -> Work:
        """A revision of the chain's last attempt that says anything, or a first attempt."""
        attempts = chains.chains[number]
        key, group = f"{NAME}/{number}/{len(attempts)}", f"{NAME}/{number}"
        temperature = self.temperatures[number % len(self.temperatures)] if self.temperatures else self.temperature
        base = next((attempt for attempt in reversed(attempts) if attempt.final.strip()), None)
        if base is not None:
            return rewrite(self, view, key, [base], group=group, temperature=temperature, scorer=self.scorer)
        prompt, tools = answer_prompt(view.task.question, view.task.tools), view.task.tools
        return self.work(view, key, prompt, group=group, tools=tools, temperature=temperature, scorer=self.scorer)

    def _pick(self, view: View, chains: Chains, *, limited: bool) -> Plan:
        attempts = sorted(chains.threads(), key=lambda thread: thread.order)
        if self.picks == "best" and any(attempt.answer is not None for attempt in attempts):
            return self._best(view, attempts, limited=limited)
        if self.picks == "last":
            answered = [[a for a in chain if a.answer is not None] for chain in chains.chains]
            voters = sorted((chain[-1] for chain in answered if chain), key=lambda thread: thread.order)
        else:
            voters = attempts
        votes = tally(voters)
        if not votes.leader:
            return Plan(failure=failure(attempts), limited=limited)
        reason = f"the {'last answers' if self.picks == 'last' else 'majority'} of {len(attempts)} attempts"
        return Plan(answer=settle(view, votes.leader, of=votes.votes, reason=reason), limited=limited)

    def _best(self, view: View, attempts: list[ThreadInfo], *, limited: bool) -> Plan:
        values = [(value(a, self.scorer), a) for a in attempts if a.answer is not None]
        scored = [(score, attempt) for score, attempt in values if score is not None]
        if not scored:
            by = self.scorer or view.task.verifier or "a verifier, of which there is none"
            return Plan(failure=f"none of {len(values)} answers was scored by {by}", limited=limited)
        score, best = max(scored, key=lambda pair: (pair[0], -pair[1].order))
        reason = f"the best score, {score:.3g}, of {len(scored)} scored attempts"
        return Plan(answer=settle(view, [best], of=len(values), reason=reason), limited=limited)
