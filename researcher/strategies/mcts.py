"""Monte Carlo tree search over steps: select, expand, roll out where asked to, back up; many at once, no barriers.

One iteration samples one step. Descent: a state that may have more children is expanded, else the child with the
greatest bound is followed. Simulations under way are virtual losses, so that those selected together spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from msgspec.structs import replace
from pydantic import Field, ValidationInfo, field_validator

from researcher.strategies.base import conclude, failure, wants_support
from researcher.strategies.search import ROLLOUT, Entry, State, Table, priors, puct, uct
from researcher.strategies.steps import StepParameters
from researcher.types import Outcome, Work
from researcher.views import Plan, View

SPREAD = 8
"""Many expansions in flight have at least this many parents: none has more than its share, or two."""
BLIND = 8
"""Simulations without a value after which a search that never had one gives up."""


class MCTS(StepParameters):
    """Searches the tree of steps by upper confidence bounds and gives the best answer found."""

    name: Literal["mcts"] = "mcts"
    iterations: int = Field(default=64, ge=1, le=1_000_000, description="steps to sample in all")
    depth: int = Field(default=40, ge=2, le=10_000, description="steps a solution may have (search-and-learn: 40)")
    expansions: int = Field(default=2, ge=1, le=1000, description="children of a state at its first visit")
    widening: float = Field(
        default=0.25,
        ge=0.0,
        le=1.0,
        description="children grow with visits ** widening (Couetoux 2011); 0: they do not",
    )
    parallel: int = Field(default=16, ge=1, le=10_000, description="simulations in flight")
    policy: Literal["uct", "puct"] = Field(default="uct", description="the bound by which children are selected")
    weight: float = Field(default=0.3, ge=0.0, description="policy=uct: weight of exploration (llm-reasoners: 1)")
    prior: Literal["scores", "uniform"] = Field(default="scores", description="policy=puct: prior of the children")
    noise: float = Field(default=0.25, ge=0.0, le=1.0, description="policy=puct: share of noise at the root (openr)")
    alpha: float = Field(default=0.3, gt=0.0, description="policy=puct: of the Dirichlet noise (openr: 0.3)")
    values: Literal["scores", "rollouts"] = Field(
        default="scores", validate_default=True, description="a simulation's value: its step's score, or a roll-out's"
    )
    final: Literal["value", "visits", "verified"] = Field(
        default="value", description="the answer of the greatest value, on the most visited path, or none but verified"
    )
    stop_when_verified: bool = Field(default=True, description="end with the first answer the verifier confirms")

    @field_validator("values")
    @classmethod
    def _scored(cls, values: str, info: ValidationInfo) -> str:
        if values == "scores" and not info.data.get("scorer"):
            raise ValueError("values=scores needs a scorer")
        return values

    @property
    def needs_verdicts(self) -> bool:
        """Whether it rests on the task's verifier."""
        return not self.scorer or self.final == "verified"

    def plan(self, view: View) -> Plan:
        """Fill the slots with roll-outs and expansions until the iterations are spent."""
        table = Table.of(view, self.name, rollouts=self.values == "rollouts", aggregate=self.aggregate)
        if self.stop_when_verified and table.verified:
            first = min(table.verified.values(), key=lambda entry: entry.node.info.order)
            return self._answer(view, table, first, "the verifier confirms it")
        if table.blind >= BLIND and not (table.valued if table.rollouts else table.scored):
            return Plan(failure=self._unvalued(table), cancel=tuple(view.in_flight))
        wanted = self._wanted(view, table)
        if wanted and view.budget.spendable:
            return Plan(start=tuple(wanted))
        return Plan() if view.in_flight else self._finish(view, table, limited=bool(wanted))

    def _wanted(self, view: View, table: Table) -> list[Work]:
        """Roll-outs of the steps that wait for one, then expansions, each of which counts when the next is selected."""
        room = min(view.free, self.parallel - len(view.in_flight))
        bound = partial(self._bound, view, table)
        held: list[tuple[State, ...]] = []
        works: list[Work] = []
        for number in sorted(table.waiting)[: max(0, room)]:
            works.append(self._rollout(view, table.waiting[number]))
            held.append(tuple(table.waiting[number].touched()))
            table.hold(held[-1], step=False)
        rollouts = len(held)
        room = min(room, self.iterations - len(table.steps) + rollouts)
        wider, blocked = 0 if table.root.flight else table.root.closed, set[State]()
        while len(works) < room:
            path = table.select(self._full, bound, cap=max(2, self.parallel // SPREAD), blocked=blocked, wider=wider)
            if path is None:
                if table.root.flight:
                    break
                wider, blocked = wider + 1, set()  # all have their children, and none will get more visits
                continue
            key = table.key(len(table.steps) + len(works) - rollouts, path)
            rep = path[-1].rep
            works.append(self.step(view, key, rep, group=key if rep is None else rep.info.work.group))
            held.append(path)
            table.hold(path)
        for i, path in enumerate(held):
            table.hold(path, -1, step=i >= rollouts)
        return works

    def _rollout(self, view: View, entry: Entry) -> Work:
        """Work that goes on from a step to the end of the solution."""
        key = f"{ROLLOUT}{entry.number}"
        step = self.step(view, key, entry.node, group=entry.node.info.work.group)
        return replace(step, sampling=replace(step.sampling, max_tokens=self.max_tokens, stop=(), keep_stop=False))

    def _full(self, state: State, wider: int) -> bool:
        """Whether a state has all the children that it may have for its visits, twice as many when widened."""
        allowed = self.expansions * max(1, state.visits) ** self.widening
        return state.depth >= self.depth or state.spawned >= math.ceil(allowed) << wider

    def _bound(self, view: View, table: Table, state: State) -> Callable[[State], float]:
        """The bound of each child of a state."""
        visits = state.tried
        if self.policy == "uct":
            return lambda child: uct(child.value, visits, child.tried, self.weight)
        share = priors(state, uniform=self.prior == "uniform")
        if state is table.root:
            share = table.noisy(share, self.noise, self.alpha, view.seed)
        return lambda child: puct(child.value, share[child], visits, child.tried)

    def _finish(self, view: View, table: Table, *, limited: bool) -> Plan:
        """The final answer, or why there is none."""
        answers = table.verified if self.final == "verified" else table.answers
        expanded = table.deepest > 1 or table.verified
        leaves = (
            [] if table.answers or table.rolled or not expanded else [e for e in table.steps.values() if e.node.alive]
        )
        if leaves:  # the steps did not suffice: one thread goes on to the end from the best of them
            return Plan(start=(replace(self._rollout(view, max(leaves, key=_by_value)), reserved=True),))
        if not answers or not expanded:
            return Plan(failure=self._nothing(table), limited=limited)
        if self.final == "visits":
            best, reason = max(answers.values(), key=_by_visits), "the most visited path leads to it"
        else:
            best, reason = max(answers.values(), key=_by_value), "it has the greatest value"
        if best.amount is None:
            return Plan(failure=self._unvalued(table), limited=limited)
        return self._answer(view, table, best, reason, limited=limited)

    def _answer(self, view: View, table: Table, best: Entry, reason: str, *, limited: bool = False) -> Plan:
        same = [e.node.info for e in table.answers.values() if e.node.info.canonical == best.node.info.canonical]
        same.sort(key=lambda info: (info is not best.node.info, info.order))
        reason = f"{reason}; {len(table.steps)} steps, at most {table.deepest} deep"
        answer = conclude(same, view.graph, of=len(table.answers), wanted=wants_support(view.task), reason=reason)
        return Plan(answer=replace(answer, body=best.node.text), cancel=tuple(view.in_flight), limited=limited)

    def _unvalued(self, table: Table) -> str:
        by = f"the scorer {self.scorer} gave no score" if self.scorer else "the task's verifier gave no verdict"
        return f"the search has nothing to go by: {by} for {table.blind} simulations"

    def _nothing(self, table: Table) -> str:
        lost = [e.node.info for e in table.entries.values() if e.node.info.outcome is not Outcome.ANSWERED]
        count = len(table.steps)
        if table.deepest < 2:
            head = f"the search never expanded a step: of {count} first steps none could be continued, or was"
        else:
            kind = "verified answer" if table.answers else "answer"
            head = f"no {kind} in {count} steps, at most {table.deepest} deep"
        return f"{head}; {failure(lost)}" if lost else head


def _by_value(entry: Entry) -> tuple[int, int]:
    return (-1 if entry.amount is None else entry.amount, -entry.node.info.order)


def _by_visits(entry: Entry) -> tuple[list[int], int, int]:
    """At each state the child with the most visits that leads to an answer; the root is on every path."""
    return ([state.visits for state in entry.touched()], *_by_value(entry))
