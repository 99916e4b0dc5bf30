"""Self-consistency (Wang et al. 2022): many chains of thought, the most frequent canonical answer wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from researcher.protocols import Plan, ThreadInfo, View
from researcher.strategies.base import Parameters, conclude, failure, wants_support
from researcher.strategies.prompts import answer_prompt
from researcher.strategies.votes import Tally, beta_confidence, decided, finished_prefix, tally
from researcher.types import Work

Stop = Literal["full", "beta", "lossless"]
GROUP = "vote"


class Vote(Parameters):
    """Samples `n` threads and takes the majority.

    `stop`: `full` waits for all; `lossless` stops when the threads still running cannot change the winner; `beta`
    stops at `confidence` that the leader stays ahead (adaptive consistency), judged in submission order.
    """

    name: Literal["vote"] = "vote"
    n: int = Field(default=16, ge=1, le=100_000, description="threads to sample")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="sampling temperature")
    stop: Stop = Field(default="lossless", description="when to stop early")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="for stop=beta (Aggarwal et al. 2023: 0.95)")

    @property
    def cancels(self) -> bool:
        """Whether it stops threads early."""
        return self.stop != "full"

    def plan(self, view: View) -> Plan:
        """Fill the free slots until the vote is decided."""
        threads = view.graph.threads(GROUP)
        unstarted = self.n - len(threads) if view.budget.spendable else 0
        works = self._works(view, len(threads), min(unstarted, view.free))
        if self.stop == "full" and view.in_flight:
            return Plan(start=works)
        decision = self._decision(threads, unstarted)
        if decision is None:
            return Plan(start=works)
        reason, votes = decision
        limited = not unstarted and len(threads) < self.n and votes.votes == tally(threads).votes
        if not votes.leader:
            return Plan(failure=failure(threads), limited=limited)
        answer = conclude(votes.leader, view.graph, of=votes.votes, wanted=wants_support(view.task), reason=reason)
        return Plan(cancel=tuple(view.in_flight), answer=answer, limited=limited)

    def _works(self, view: View, started: int, room: int) -> tuple[Work, ...]:
        prompt, tools = answer_prompt(view.task.question, view.task.tools), view.task.tools
        return tuple(
            self.work(view, f"{GROUP}/{i}", prompt, group=GROUP, tools=tools, temperature=self.temperature)
            for i in range(started, started + room)
        )

    def _decision(self, threads: Sequence[ThreadInfo], unstarted: int) -> tuple[str, Tally] | None:
        """Why the vote is over and on which votes; None while it is not."""
        votes = tally(threads)
        pending = unstarted + sum(thread.outcome is None for thread in threads)
        if pending == 0:
            return f"all {len(threads)} threads have ended", votes
        if self.stop == "full" or not votes.leader:
            return None
        if decided(*votes.top_two, pending):
            return f"the {pending} threads left cannot change the winner", votes
        if self.stop == "beta":
            prefix = tally(finished_prefix(threads))
            if prefix.leader and beta_confidence(*prefix.top_two) >= self.confidence:
                return f"the leader stays ahead with probability {self.confidence:g} or more", prefix
        return None
