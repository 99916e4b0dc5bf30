"""A router: a few samples say how hard the question is, and a table which strategy answers it.

    measured on the probes                                      is      the first of these that can run
    ----------------------------------------------------------  ------  ---------------------------------------
    one is verified as right                                    solved  none: that is the answer
    share of the leading answer >= `easy`, its mean score, if   easy    vote
    there is a scorer, >= `trust`, and nothing refutes it
    that share >= `hard`, and nothing refutes it                medium  best_of_n, beam, vote
    all else                                                    hard    beam, mcts, dvts, rsa, best_of_n, refine,
                                                                        vote

Search against a process reward model pays on hard questions and can hurt on easy ones, where samples agree already
(Snell et al. 2024). What is in `among` and not in the table comes after it, in the order given. The probes are samples
like those of `vote` and `best_of_n`, which go on with them where they would have drawn the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace as renamed
from pydantic import Field

from researcher.errors import UserError
from researcher.protocols import Strategy
from researcher.strategies.base import Parameters, conclude, failure, wants_support
from researcher.strategies.offer import Difficulty, Offer
from researcher.strategies.revision import is_right, value
from researcher.strategies.scoped import Scopes
from researcher.strategies.vote import GROUP, Vote
from researcher.strategies.votes import tally
from researcher.types import Outcome, VerdictStatus
from researcher.views import Plan, ThreadInfo, View

NAME = "auto"
SAMPLES = "samples"
"""The scope of the probes, and of a strategy that goes on with them."""


class Measured(NamedTuple):
    """What the probes say, in a class and in words; `mute`: verifiers that could say nothing of any answer."""

    difficulty: Difficulty
    why: str
    mute: frozenset[str]


class Auto(Parameters):
    """Measures how hard the question is, chooses a strategy for it, runs that, and says why."""

    name: Literal["auto"] = "auto"
    probe: int = Field(default=4, ge=2, le=1000, description="samples that measure the difficulty")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="sampling temperature of the probes")
    easy: float = Field(default=0.75, gt=0.0, le=1.0, description="share of agreeing probes from which it is easy")
    hard: float = Field(default=0.5, ge=0.0, le=1.0, description="share of agreeing probes below which it is hard")
    trust: float = Field(default=0.5, ge=0.0, le=1.0, description="mean score below which agreement is not trusted")
    scorer: str = Field(default="", description="verifier that scores answers: the probes', best_of_n's, ...")
    step_scorer: str = Field(default="", description="verifier that scores steps; without one no search over steps")
    among: tuple[str, ...] = Field(
        default=("vote", "best_of_n", "beam", "mcts", "rsa", "refine"),
        min_length=1,
        description="the strategies it may choose",
    )
    params: dict[str, dict[str, Any]] = Field(default={}, description="their parameters, by strategy")
    stop_when_verified: bool = Field(default=True, description="stop at a probe that the task's verifier accepts")

    def model_post_init(self, context: Any, /) -> None:
        """Refuse at once what names no strategy, or a parameter that it does not have."""
        for name in self.params:
            if name not in self.among:
                raise UserError(f"Strategy auto: params names {name}, which is not among {', '.join(self.among)}.")
        if NAME in self.among:
            raise UserError("Strategy auto cannot choose itself; leave auto out of among.")
        _ = self.offer

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works, and those of the strategies it may choose, can name."""
        named = [self.scorer, self.step_scorer, *self.offer.scorers]
        return tuple(dict.fromkeys(name for name in named if name))

    def plan(self, view: View) -> Plan:
        """Probe, choose, run what was chosen."""
        scopes = Scopes.of(view, NAME)
        probes = self._probes(view)
        right = [thread for thread in probes if is_right(thread)]
        if right and self.stop_when_verified:
            same = [thread for thread in right if thread.canonical == right[0].canonical]
            return self._settle(view, same, "a probe that the task's verifier accepts")
        if not self._over(view, probes):
            return scopes.plan(view, SAMPLES, self._prober, free=view.free, memo="probes")
        if all(thread.outcome is Outcome.FAILED for thread in probes):
            return Plan(failure=failure(probes), limited=not view.budget.spendable)
        measured = self._measure(probes)
        name, strategy = self.offer.choose(measured.difficulty, view, measured.mute)
        if strategy is None:
            return Plan(failure=f"{measured.why}; {name}")
        label = SAMPLES if self._goes_on(strategy) else name
        if not view.budget.spendable and not scopes.scope(label).works:
            return self._cut_short(view, probes, f"{measured.why}; the budget was spent before {name} could begin")
        return self._run(view, scopes, label, strategy, f"{measured.why}: {name}")

    def _run(self, view: View, scopes: Scopes, label: str, strategy: Strategy, why: str) -> Plan:
        plan = scopes.plan(view, label, strategy, free=view.free, memo="chosen")
        if plan.answer is not None:
            return replace(plan, answer=renamed(plan.answer, reason=f"{why}; {plan.answer.reason}"))
        if plan.failure is not None:
            return replace(plan, failure=f"{why}; {plan.failure}")
        return plan

    def _probes(self, view: View) -> list[ThreadInfo]:
        found = (view.graph.thread(f"{NAME}/{SAMPLES}/{GROUP}/{i}") for i in range(self.probe))
        return [thread for thread in found if thread is not None]

    def _over(self, view: View, probes: Sequence[ThreadInfo]) -> bool:
        enough = len(probes) == self.probe or not view.budget.spendable
        return enough and all(thread.outcome is not None for thread in probes)

    def _measure(self, probes: Sequence[ThreadInfo]) -> Measured:
        """The class of difficulty by the module's table."""
        votes = tally(probes)
        leader = votes.leader
        share = len(leader) / self.probe
        scores = [thread.score for thread in leader if thread.score is not None]
        refuted = any(t.verdict is not None and t.verdict.status is VerdictStatus.WRONG for t in leader)
        trusted = not scores or sum(scores) / len(scores) >= self.trust
        said = [f"{len(leader)} of {len(probes)} probes agree"]
        if scores:
            said.append(f"with a mean score of {sum(scores) / len(scores):.2f}")
        if refuted:
            said.append("on an answer that is refuted")
        difficulty: Difficulty = "hard"
        if not refuted and share >= self.hard:
            difficulty = "easy" if share >= self.easy and trusted else "medium"
        return Measured(difficulty, f"{' '.join(said)} ({difficulty})", self._mute(probes))

    def _mute(self, probes: Sequence[ThreadInfo]) -> frozenset[str]:
        answered = [thread for thread in probes if thread.canonical is not None]
        spoke = {scorer for scorer in ("", self.scorer) if any(value(each, scorer) is not None for each in answered)}
        return frozenset({"", self.scorer} - spoke) if answered else frozenset()

    def _settle(self, view: View, threads: Sequence[ThreadInfo], why: str, *, of: int = 1) -> Plan:
        answer = conclude(threads, view.graph, of=of, wanted=wants_support(view.task), reason=why)
        return Plan(answer=answer, cancel=tuple(view.in_flight))

    def _cut_short(self, view: View, probes: Sequence[ThreadInfo], why: str) -> Plan:
        votes = tally(probes)
        if not votes.leader:
            return Plan(failure=f"{why}; {failure(probes)}", limited=True)
        return replace(self._settle(view, votes.leader, why, of=votes.votes), limited=True)

    @cached_property
    def _prober(self) -> Vote:
        """The probes, as a vote that is not stopped."""
        return Vote.model_validate(self.offer.given(Vote, {"n": self.probe, "stop": "full"}))

    def _goes_on(self, strategy: Strategy) -> bool:
        """Whether the strategy would have drawn the probes itself, as its first samples."""
        probes, sampler = self._prober.sampler, getattr(strategy, "sampler", None)
        if sampler is None or probes is None:
            return False
        return bool(sampler.chain == probes.chain and sampler.scorer in ("", probes.scorer))

    @cached_property
    def offer(self) -> Offer:
        """The strategies it may choose, built."""
        own = {str(name): getattr(self, name) for name in ("max_tokens", "turns") if name in self.model_fields_set}
        return Offer(self.among, self.params, own, self.temperature, scorer=self.scorer, step_scorer=self.step_scorer)
