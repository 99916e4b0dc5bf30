"""AB-MCTS-A: at each answer, Thompson sampling decides between a new one from it and going down to one it led to.

Inoue et al. 2025, "Wider or Deeper?", with node aggregation as in treequest: the arm "new" has seen the scores of the
node's own children, the arm "down" those of everything deeper, a child's arm its own score and all below it. Answers
under way count as scores of 0 until they end, so that those planned together spread.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable
from random import Random
from typing import Literal

from pydantic import Field

from researcher.protocols import Plan, ThreadInfo, View
from researcher.strategies.base import Parameters, failure, seed_of
from researcher.strategies.prompts import answer_prompt
from researcher.strategies.revision import is_right, rewrite, settle, value
from researcher.strategies.search import UNIT
from researcher.types import Outcome, Work

Prior = Literal["gaussian", "beta"]
BLIND = 8
"""Answers without a score after which a search that never had one gives up."""


class Arm:
    """The scores an arm has seen, as sums of integers: no order of them changes a bit."""

    __slots__ = ("n", "square", "total")

    def __init__(self) -> None:
        self.n = self.total = self.square = 0

    def see(self, amount: int, sign: int = 1) -> None:
        """Count in a score (in units of 1/UNIT), or out again."""
        self.n += sign
        self.total += sign * amount
        self.square += sign * amount * amount

    def draw(self, prior: Prior, rng: Random) -> float:
        """A mean score drawn from the posterior."""
        if prior == "beta":
            return rng.betavariate(*self.beta())
        m, kappa, nu, tau2 = self.gaussian()
        variance = nu * tau2 / rng.gammavariate(nu / 2, 2.0)  # scaled inverse chi-squared
        return rng.gauss(m, math.sqrt(variance / kappa))

    def beta(self, a: float = 0.5, b: float = 0.5) -> tuple[float, float]:
        """The posterior Beta(a, b): a score r adds r to a and 1 - r to b."""
        return a + self.total / UNIT, b + (self.n * UNIT - self.total) / UNIT

    def gaussian(
        self, m: float = 0.0, kappa: float = 1.0, nu: float = 1.0, tau2: float = 0.1
    ) -> tuple[float, float, float, float]:
        """The posterior of a normal-inverse-chi-squared prior: Murphy 2023, section 3.4.3.3."""
        if not self.n:
            return m, kappa, nu, tau2
        n, mean = self.n, self.total / (UNIT * self.n)
        squares = (n * self.square - self.total**2) / (n * UNIT**2)  # around the mean
        scale = nu * tau2 + squares + n * kappa / (kappa + n) * (m - mean) ** 2
        return (kappa * m + n * mean) / (kappa + n), kappa + n, nu + n, scale / (nu + n)


class Branch:
    """An answer; the root is the question. `children` are those with a score, in submission order."""

    __slots__ = ("amount", "arm", "children", "down", "info", "new", "parent")

    def __init__(self, parent: Branch | None, info: ThreadInfo | None = None) -> None:
        self.parent = parent
        self.info = info
        self.new, self.down, self.arm = Arm(), Arm(), Arm()
        self.children: list[Branch] = []
        self.amount: int | None = None
        """What its arms were told of it: its score, 0 while it runs, None where it has none."""

    @property
    def order(self) -> int:
        """When it was submitted."""
        return -1 if self.info is None else self.info.order

    def tell(self, amount: int | None) -> None:
        """Let all arms above know what this answer scored, instead of what they knew."""
        for seen, sign in ((self.amount, -1), (amount, 1)):
            node: Branch = self
            while seen is not None and node.parent is not None:
                node.arm.see(seen, sign)
                (node.parent.new if node is self else node.parent.down).see(seen, sign)
                node = node.parent
        self.amount = amount

    def descend(self, prior: Prior, rng: Random) -> Branch:
        """The node to make a new answer from."""
        node = self
        while node.children and node.down.draw(prior, rng) > node.new.draw(prior, rng):
            node = max(node.children, key=lambda child: child.arm.draw(prior, rng))
        return node


class Forest:
    """All answers of one search, as a fold of the graph. `seq`: the event up to which it is right."""

    def __init__(self, scorer: str) -> None:
        self.scorer = scorer
        self.seq = 0
        self.root = Branch(None)
        self.branches: dict[str, Branch] = {}
        self.verified: dict[str, ThreadInfo] = {}
        self.scored = self.blind = 0

    @classmethod
    def of(cls, view: View, name: str, scorer: str) -> Forest:
        """The answers in the view's graph, kept in its memo under `name`."""
        forest = view.memo.get(name)
        if not isinstance(forest, cls):
            forest = view.memo[name] = cls(scorer)
        forest.update(info for info in view.graph.changes(forest.seq) if info.key.startswith(f"{name}/"))
        forest.seq = view.graph.seq
        return forest

    def update(self, changes: Iterable[ThreadInfo]) -> None:
        """Take in threads as they are now."""
        for info in changes:
            branch = self.branches.get(info.key)
            if branch is None:
                parent = self.branches[info.work.uses[0]] if info.work.uses else self.root
                branch = self.branches[info.key] = Branch(parent)
            branch.info = info
            if info.outcome is None:
                branch.tell(0)
            elif info.outcome in (Outcome.FAILED, Outcome.CANCELLED):
                branch.tell(None)
            else:
                self._end(branch, info)

    def _end(self, branch: Branch, info: ThreadInfo) -> None:
        score = 0.0 if info.answer is None else value(info, self.scorer)
        branch.tell(None if score is None else round(score * UNIT))
        if score is None:
            self.blind += 1
        elif info.answer is not None:
            self.scored += 1
            assert branch.parent is not None
            insort(branch.parent.children, branch, key=lambda child: child.order)
            if is_right(info):
                self.verified[info.key] = info


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
