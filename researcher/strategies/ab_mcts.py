"""AB-MCTS-A: at each answer, Thompson sampling decides between a new one from it and going down to one it led to."""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field

from researcher.strategies.base import Parameters, failure, seed_of
from researcher.strategies.prompts import answer_prompt
from researcher.strategies.revision import rewrite, settle
from researcher.strategies.thompson import Branch, Forest, Prior
from researcher.types import Work
from researcher.views import Plan, ThreadInfo, View

BLIND = 8
"""Answers without a score after which a search that never had one gives up."""


class ABMCTS(Parameters):
    """Samples answers and refines the promising ones; gives the one with the best score."""

    name: Literal["ab_mcts"] = "ab_mcts"
    n: int = Field(default=32, ge=1, le=100_000, description="answers to make in all (the paper: up to 128)")
    scorer: str = Field(default="", description="verifier that scores each answer; empty: the task's own")
    prior: Prior = Field(default="gaussian", description="of a mean score (treequest: gaussian (0, 1, 1, 0.1))")
    parallel: int = Field(default=16, ge=1, le=10_000, description="answers in flight")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="sampling temperature")
    stop_when_verified: bool = Field(default=True, description="end with the first answer the verifier confirms")

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works name."""
        return (self.scorer,) if self.scorer else ()

    @property
    def needs_verdicts(self) -> bool:
        """Whether it rests on the task's verifier."""
        return not self.scorer

    def plan(self, view: View) -> Plan:
        """Fill the slots with answers until there are `n`."""
        forest = Forest.of(view, self.name, self.scorer)
        if self.stop_when_verified and forest.verified:
            best = min(forest.verified.values(), key=lambda info: info.order)
            return self._answer(view, forest, best, "the verifier confirms it", limited=False)
        if forest.blind >= BLIND and not forest.scored:
            return Plan(failure=self._unscored(forest), cancel=tuple(view.in_flight))
        left = self.n - len(forest.branches)
        room = min(view.free, self.parallel - len(view.in_flight), left)
        if room > 0 and view.budget.spendable:
            return Plan(start=self._works(view, forest, room))
        if view.in_flight:
            return Plan()
        limited = left > 0
        scored = [branch for branch in forest.branches.values() if branch.info and branch.info.answer is not None]
        best_branch = max(scored, key=lambda b: (-1 if b.amount is None else b.amount, -b.order), default=None)
        if best_branch is None or best_branch.info is None:
            return Plan(failure=failure(b.info for b in forest.branches.values() if b.info), limited=limited)
        if best_branch.amount is None:
            return Plan(failure=self._unscored(forest), limited=limited)
        return self._answer(view, forest, best_branch.info, "it has the best score", limited=limited)

    def _works(self, view: View, forest: Forest, room: int) -> tuple[Work, ...]:
        works: list[Work] = []
        pending: list[Branch] = []
        for number in range(len(forest.branches), len(forest.branches) + room):
            # Its own generator: what is drawn depends on the seed and on what is known, not on earlier plans.
            rng = Random(seed_of(view.seed, f"draw/{number}"))
            parent = forest.root.descend(self.prior, rng)
            works.append(self._work(view, f"{self.name}/{number}", parent.info))
            pending.append(Branch(parent))
            pending[-1].tell(0)
        for branch in pending:
            branch.tell(None)
        return tuple(works)

    def _work(self, view: View, key: str, parent: ThreadInfo | None) -> Work:
        group, temperature, scorer = self.name, self.temperature, self.scorer
        if parent is not None:
            return rewrite(self, view, key, [parent], group=group, temperature=temperature, scorer=scorer)
        prompt, tools = answer_prompt(view.task.question, view.task.tools), view.task.tools
        return self.work(view, key, prompt, group=group, tools=tools, temperature=temperature, scorer=scorer)

    def _answer(self, view: View, forest: Forest, best: ThreadInfo, reason: str, *, limited: bool) -> Plan:
        threads = [branch.info for branch in forest.branches.values() if branch.info and branch.info.answer is not None]
        same = sorted((i for i in threads if i.canonical == best.canonical), key=lambda i: (i is not best, i.order))
        answer = settle(view, same, of=len(threads), reason=reason)
        return Plan(answer=answer, cancel=tuple(view.in_flight), limited=limited)

    def _unscored(self, forest: Forest) -> str:
        by = f"the scorer {self.scorer} gave no score" if self.scorer else "the task's verifier gave no verdict"
        return f"the search has nothing to go by: {by} for any of {forest.blind} answers"
