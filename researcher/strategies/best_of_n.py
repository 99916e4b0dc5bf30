"""Best of N: many answers, each with a score; the one of the best score, or of the largest sum of scores, wins.

The scores are a scorer's (an outcome or process reward model, a judge), or, where the task has a rule to check
answers by, its verifier's. Threads are named as those of `vote`: at one seed both draw the same samples, so that a
comparison of the two is a paired one, and a router can go on with the one where the other began.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from msgspec.structs import replace
from pydantic import Field, model_validator

from researcher.errors import UserError
from researcher.strategies.base import conclude, failure, wants_support
from researcher.strategies.candidates import Candidate, Candidates, StepCandidates
from researcher.strategies.chain_of_thought import Chain, ChainOfThought, Sampler
from researcher.strategies.steps import Aggregate, StepParameters
from researcher.strategies.vote import GROUP
from researcher.types import Work
from researcher.views import Plan, ThreadInfo, View

STEPS = "chain"


class BestOfN(Chain):
    """Samples `n` answers, has each scored, and chooses."""

    name: Literal["best_of_n"] = "best_of_n"
    n: int = Field(default=16, ge=1, le=100_000, description="answers to sample")
    scorer: str = Field(default="", description="verifier that scores each answer; without one the task's verifier")
    choose: Literal["weighted", "naive"] = Field(
        default="weighted",
        description="weighted: the answer of the largest sum of scores (Li et al. 2023); naive: of the best score",
    )
    aggregate: Aggregate | None = Field(
        default=None,
        description="last, min, prod or mean: write solutions in steps, score each step once, and make one score of "
        "them so; without a choice the scorer scores the whole answer",
    )
    stop: Literal["lossless", "full"] = Field(
        default="lossless", description="stop when no score in [0, 1] that may come can change the choice, or never"
    )
    stop_when_verified: bool = Field(default=True, description="stop at an answer that the task's verifier accepts")
    delimiter: str = Field(default="\n", min_length=1, description="for aggregate: ends a step, and is kept")
    step_tokens: int = Field(default=256, ge=1, description="for aggregate: tokens one step may have")
    depth: int = Field(default=40, ge=1, le=10_000, description="for aggregate: steps a solution may have")

    @model_validator(mode="after")
    def _steps_need_a_scorer(self) -> Self:
        if self.aggregate is not None and not self.scorer:
            raise UserError("Strategy best_of_n: aggregate makes one score of the steps'; name a scorer, like prm.")
        if self.aggregate is not None and self.style != "zero_shot":
            raise UserError(
                f"Strategy best_of_n: steps have a prompt of their own; style={self.style} would not be used."
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Capability names the model must have."""
        return frozenset() if self.aggregate is None else frozenset({"steps"})

    @property
    def calls_tools(self) -> bool:
        """Whether its threads can call tools: whole answers can, steps cannot."""
        return self.aggregate is None and super().calls_tools

    @property
    def needs_verdicts(self) -> bool:
        """Whether it rests on the task's verifier."""
        return not self.scorer

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works name."""
        return (self.scorer,) if self.scorer else ()

    @property
    def sampler(self) -> Sampler | None:
        """How it draws its threads; None where they are steps."""
        fields = {name: getattr(self, name) for name in Chain.model_fields}
        return None if self.aggregate is not None else Sampler(ChainOfThought(**fields), self.scorer)

    def plan(self, view: View) -> Plan:
        """Fill the free slots until the choice is made."""
        if self.aggregate is not None and view.task.tools:
            return Plan(failure="best_of_n with aggregate writes steps, which can call no tools; this task has tools")
        found = self._candidates(view)
        if self.stop_when_verified and found.right is not None:
            return self._choose(view, [found.right], of=1, reason="the task's verifier accepts it")
        missing, spendable, weighted = max(0, self.n - found.ballots.opened), view.budget.spendable, self._weighted
        unstarted = missing + len(found.waiting)
        pending = found.running + (unstarted if spendable else 0)
        lossless = self.stop == "lossless"
        if pending and not (lossless and found.decided(pending, weighted=weighted)):
            return Plan(start=self._works(view, found) if spendable else ())
        sure = lossless and found.decided(found.running + unstarted, weighted=weighted)
        limited = not spendable and unstarted > 0 and not sure
        chosen = found.chosen(weighted=weighted)
        if not chosen:
            return Plan(failure=self._why(view, found), limited=limited)
        votes = found.ballots.tally.votes
        reason = f"the {'largest sum' if weighted else 'best'} of {votes} scores from {self._judge}"
        if found.unscored:
            reason += f"; {found.unscored} answers without a score were passed over"
        return self._choose(view, chosen, of=votes, reason=reason, limited=limited)

    @property
    def _weighted(self) -> bool:
        return self.choose == "weighted"

    @property
    def _judge(self) -> str:
        return self.scorer or "the task's verifier"

    def _candidates(self, view: View) -> Candidates:
        if self.aggregate is None:
            return Candidates.of(view, "candidates", GROUP, self.scorer)
        return StepCandidates.of(view, "candidates", STEPS, self.scorer, self.aggregate, self.depth)

    def _works(self, view: View, found: Candidates) -> tuple[Work, ...]:
        """The next steps of the solutions begun, the first ones first; then new answers."""
        begin = found.ballots.opened
        if self.aggregate is None:
            numbers = range(begin, min(self.n, begin + view.free))
            return tuple([self.chain(view, f"{GROUP}/{i}", group=GROUP, scorer=self.scorer) for i in numbers])
        passed = ("scorer", "delimiter", "step_tokens", "temperature")
        own = (*passed, "max_tokens") if "max_tokens" in self.model_fields_set else passed
        steps = StepParameters(**{name: getattr(self, name) for name in own})
        begun = sorted(found.waiting.items())[: view.free]
        works = [steps.step(view, f"{STEPS}/{i}/{node.depth}", node, group=STEPS) for i, node in begun]
        numbers = range(begin, min(self.n, begin + view.free - len(works)))
        return (*works, *[steps.step(view, f"{STEPS}/{i}/0", None, group=STEPS) for i in numbers])

    def _choose(self, view: View, chosen: Sequence[Candidate], *, of: int, reason: str, limited: bool = False) -> Plan:
        threads = [candidate.info for candidate in chosen]
        answer = conclude(threads, view.graph, of=of, wanted=wants_support(view.task), reason=reason)
        answer = replace(answer, body=chosen[0].body)
        return Plan(answer=answer, cancel=tuple(view.in_flight), limited=limited)

    def _why(self, view: View, found: Candidates) -> str:
        """Why there is nothing to choose from."""
        threads: Sequence[ThreadInfo] = view.graph.threads()
        if not found.unscored:
            return failure(threads)
        details = dict.fromkeys(thread.detail for thread in threads if thread.detail)
        head = f"no score came from {self._judge} for any of the {found.unscored} answers"
        return "; ".join([head, *list(details)[:3]])
