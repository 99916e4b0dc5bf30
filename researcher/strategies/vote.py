"""Self-consistency (Wang et al. 2022): many chains of thought, the most frequent canonical answer wins.

Votes may be weighted by a scorer or by the model's own confidence (DeepConf), and those who vote may be the runs of
any other strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from msgspec.structs import replace

from researcher.protocols import Strategy
from researcher.strategies.base import conclude, conclude_runs, failure, wants_support
from researcher.strategies.chain_of_thought import ChainOfThought, Sampler
from researcher.strategies.deepconf import ETA, TOP, OnlineBallots, keep_best, trace_confidence
from researcher.strategies.load import load_strategy, strategy_class
from researcher.strategies.prompts import parse_quotes
from researcher.strategies.runs import Runs
from researcher.strategies.vote_rules import Decision, VoteRules
from researcher.strategies.votes import Polls, ThreadBallots
from researcher.types import Answer, Confidence, Work
from researcher.views import Plan, ThreadInfo, View

GROUP = "vote"


class Vote(VoteRules):
    """Samples `n` answers and takes the one of the largest weight.

    `beta` and `consensus` are judged in submission order, `lossless` and `full` do not depend on any order.
    """

    name: Literal["vote"] = "vote"

    @property
    def needs(self) -> frozenset[str]:
        """Capability names the model must have."""
        own = {"logprobs"} if self.weights == "confidence" else set()
        return self.voter.needs | own | ({"streaming"} if self.online != "off" else set())

    @property
    def calls_tools(self) -> bool:
        """Whether those who vote can call tools."""
        return bool(getattr(self.voter, "calls_tools", True))

    @property
    def needs_verdicts(self) -> bool:
        """Whether the runs that vote rest on verdicts."""
        return bool(getattr(self.voter, "needs_verdicts", False))

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works name."""
        return (*([self.scorer] if self.scorer else []), *getattr(self.voter, "scorers", ()))

    @property
    def cancels(self) -> bool:
        """Whether it stops threads early."""
        return self.stopping != "full" or self.online != "off" or bool(getattr(self.voter, "cancels", True))

    @cached_property
    def voter(self) -> Strategy:
        """Who votes. Greedy runs would all say the same, so those take the temperature of the vote."""
        fields = strategy_class(self.over).model_fields
        passed = {str(name) for name in ("temperature", "max_tokens", "turns") if name in self.model_fields_set}
        if "temperature" in fields and not fields["temperature"].default:
            passed.add("temperature")
        given: dict[str, Any] = {name: getattr(self, name) for name in passed if name in fields}
        return load_strategy(self.over, {**given, **self.over_params})

    @property
    def sampler(self) -> Sampler | None:
        """How it draws its threads; None where no other strategy could go on with them."""
        if isinstance(self.voter, ChainOfThought) and self.weights != "confidence":
            return Sampler(self.voter, self.scorer)
        return None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse an unknown strategy, or a parameter that it does not have, at once."""
        _ = self.voter

    def plan(self, view: View) -> Plan:
        """Fill the free slots until the vote is decided."""
        return self._threads(view, self.voter) if isinstance(self.voter, ChainOfThought) else self._runs(view)

    def _threads(self, view: View, chain: ChainOfThought) -> Plan:
        if self.weights == "evidence" and not view.task.tools:
            return Plan(failure="weights=evidence needs something to quote, and this task has no tools to read with")
        ballots = Polls.of(view, GROUP, self._ballots).group(GROUP)
        if isinstance(ballots, OnlineBallots) and not ballots.pending:
            if ballots.opened >= self.warmup or not view.budget.spendable:
                ballots.set_floor()
            if ballots.opened >= self.warmup and ballots.floor is None:
                return Plan(failure=self._unweighted(ballots, view.graph.threads(GROUP)))
        decision = self.decide(ballots, spendable=view.budget.spendable)
        if decision is None:
            return Plan(start=self._works(view, chain, ballots) if view.budget.spendable else ())
        votes = decision.votes
        if self.share < 1:
            votes = keep_best(ballots.cast(), self.share)
        if not votes.votes:
            why = self._unweighted(ballots, view.graph.threads(GROUP))
            return Plan(failure=why, limited=decision.limited)
        wanted, reason = wants_support(view.task), decision.reason + self._silent(ballots, votes.votes)
        answer = conclude(votes.leader, view.graph, of=votes.votes, wanted=wanted, reason=reason)
        return Plan(cancel=tuple(view.in_flight), answer=answer, limited=decision.limited)

    def _works(self, view: View, chain: ChainOfThought, ballots: ThreadBallots) -> tuple[Work, ...]:
        begin, end = ballots.opened, min(self.n, ballots.opened + view.free)
        floor = ballots.floor if isinstance(ballots, OnlineBallots) else None
        if self.online != "off" and floor is None:
            end = min(end, self.warmup)
        limit = None if floor is None else Confidence(floor=floor, window=self.window)
        return tuple([self._work(view, chain, i, limit if i >= self.warmup else None) for i in range(begin, end)])

    def _work(self, view: View, chain: ChainOfThought, number: int, limit: Confidence | None) -> Work:
        work = chain.chain(view, f"{GROUP}/{number}", group=GROUP, scorer=self.scorer)
        if self.weights != "confidence":
            return work
        return replace(work, sampling=replace(work.sampling, logprobs=True, top_logprobs=TOP), confidence=limit)

    def _ballots(self) -> ThreadBallots:
        if self.online != "off":
            return OnlineBallots(self.warmup, ETA[self.online], self.window, self.rule)
        return ThreadBallots(self._weight, self.rule)

    def _weight(self, thread: ThreadInfo) -> float | None:
        match self.weights:
            case "none":
                return 1.0
            case "score":
                return thread.score
            case "confidence":
                return trace_confidence(thread.confidence, self.measure or "tail", self.window)
            case "evidence":
                return evidence(thread)

    def _silent(self, ballots: ThreadBallots, votes: int) -> str:
        """How many answers did not vote, in words."""
        if self.weights == "none" or not (silent := ballots.weightless + len(ballots.cast()) - votes):
            return ""
        return f"; {silent} answers did not vote, {self._lack}"

    @property
    def _lack(self) -> str:
        if self.weights == "score":
            return f"without a score from {self.scorer}"
        if self.weights == "evidence":
            return "without a quote"
        return "without a confidence or below the floor of it"

    def _unweighted(self, ballots: ThreadBallots, threads: Sequence[ThreadInfo]) -> str:
        """Why nobody voted."""
        answers = sum(thread.canonical is not None for thread in threads)
        return f"none of the {answers} answers could vote, {self._lack}" if answers else failure(threads)

    def _runs(self, view: View) -> Plan:
        runs = Runs.of(view, GROUP, self.rule)
        start, cancel = runs.plan(view, self.voter, self.n)
        decision = self.decide(runs.ballots, spendable=view.budget.spendable)
        if decision is None:
            return Plan(start=start, cancel=cancel)
        limited = decision.limited or (not runs.ballots.pending and any(plan.limited for plan in runs.ended.values()))
        if not decision.votes.votes:
            return Plan(failure=self._no_run(runs), limited=limited)
        answer = self._elected(decision)
        return Plan(cancel=tuple(view.in_flight), answer=answer, limited=limited)

    def _elected(self, decision: Decision[Answer]) -> Answer:
        leader, votes = decision.votes.leader, decision.votes.votes
        return conclude_runs(leader, of=votes, reason=f"{decision.reason}; {leader[0].reason}")

    def _no_run(self, runs: Runs) -> str:
        reasons = dict.fromkeys(plan.failure for plan in runs.ended.values() if plan.failure)
        return "; ".join([f"none of {len(runs.ended)} runs of {self.over} gave an answer", *list(reasons)[:3]])


def evidence(thread: ThreadInfo) -> float | None:
    """The share of the quotes in a thread's last message that stand in what it read; None where it quotes nothing."""
    quotes = {quote.text for quote in parse_quotes(thread.final)}
    return min(1.0, len(thread.claims) / len(quotes)) if quotes else None
