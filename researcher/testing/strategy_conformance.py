"""What every strategy must do, as one function: `check_strategy(MyStrategy(n=8), task, reply)` raises AssertionError.

`reply` says how each thread ends; give one that lets the strategy answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from researcher.events import Event, RunStarted
from researcher.graph import ThoughtGraph
from researcher.protocols import Strategy
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Outcome, Task, Work
from researcher.views import BudgetLeft, Plan, View

Respond = Callable[[Work], Reply]
SLOTS = (1, 3, 10_000)


def check_strategy(strategy: Strategy, task: Task, reply: Respond) -> None:
    """Run all checks."""
    check_it_answers_with_any_number_of_slots(strategy, task, reply)
    check_it_is_deterministic(strategy, task, reply)
    check_it_is_pure(strategy, task)
    check_failures_end_it(strategy, task)
    check_a_spent_budget_ends_it(strategy, task, reply)
    check_it_goes_on_after_a_crash(strategy, task, reply)
    check_the_memo_changes_nothing(strategy, task, reply)


def check_it_answers_with_any_number_of_slots(strategy: Strategy, task: Task, reply: Respond) -> None:
    """It answers, starts nothing twice, never overfills the slots, and stops what it no longer needs."""
    for slots in SLOTS:
        run = simulate(strategy, task, reply, slots=slots)
        assert run.answer is not None, f"no answer with {slots} slots: {run.failure}"
        assert len(run.started) == len(set(run.started))
        assert run.most_at_once <= slots


def check_it_is_deterministic(strategy: Strategy, task: Task, reply: Respond) -> None:
    """The same seed gives the same run; work keys never depend on anything else."""
    for slots in SLOTS:
        first, second = (simulate(copy.deepcopy(strategy), task, reply, slots=slots, seed=7) for _ in range(2))
        assert first.started == second.started
        assert first.answer == second.answer


def check_it_is_pure(strategy: Strategy, task: Task) -> None:
    """The same view gives the same plan: nothing is kept between plans."""
    view = View(task, _opened(task), {}, 4, UNLIMITED)
    plans = [strategy.plan(view) for _ in range(3)]
    assert plans[0] == plans[1] == plans[2]
    assert plans[0].start, "the first plan starts nothing"


def check_failures_end_it(strategy: Strategy, task: Task) -> None:
    """When every thread breaks it says so, with the reason; it never answers and never stalls."""
    broken = Reply("", outcome=Outcome.FAILED, detail="the server is down")
    run = simulate(strategy, task, lambda _: broken)
    assert run.answer is None
    assert "the server is down" in (run.failure or ""), run.failure


def check_a_spent_budget_ends_it(strategy: Strategy, task: Task, reply: Respond) -> None:
    """With only the reserve left it starts nothing that may not spend the reserve, and ends."""

    def budget(run: Simulation) -> BudgetLeft:
        return UNLIMITED._replace(spendable=not run.ended)

    run = simulate(strategy, task, reply, slots=2, budget=budget)
    assert run.answer is not None or run.failure is not None
    before = run.started.index(run.ended[0])
    late = [key for key in run.started[max(before + 1, 2) :] if not _work(run, key).reserved]
    assert not late, f"started on a spent budget: {late}"


def check_it_goes_on_after_a_crash(strategy: Strategy, task: Task, reply: Respond, *, crashes: int = 40) -> None:
    """After a crash at any event it goes on to an answer, and never asks for work that is there (`simulate` checks).

    What it kept in `View.memo` is gone then. Long logs are cut at `crashes` places that are spread over them.
    """
    whole = simulate(strategy, task, reply, slots=3)
    step = max(1, len(whole.events) // crashes)
    for keep in range(1, len(whole.events), step):
        resumed = simulate(strategy, task, reply, slots=3, log=whole.events[:keep])
        assert resumed.answer is not None, f"no answer after a crash at event {keep}: {resumed.failure}"


def check_the_memo_changes_nothing(strategy: Strategy, task: Task, reply: Respond) -> None:
    """With its memo taken away before each plan it does the same: what it keeps there is a fold of the graph."""
    whole = simulate(strategy, task, reply, slots=3, seed=7)
    without = simulate(_Forgetful(strategy), task, reply, slots=3, seed=7)
    assert whole.started == without.started
    assert whole.answer == without.answer


class _Forgetful:
    """A strategy whose memo is always empty."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy

    @property
    def needs(self) -> frozenset[str]:
        return self._strategy.needs

    def plan(self, view: View) -> Plan:
        return self._strategy.plan(replace(view, memo={}))


def _opened(task: Task) -> ThoughtGraph:
    graph = ThoughtGraph()
    graph.apply(Event(1, None, 0.0, RunStarted(task=task, strategy="under test")))
    return graph


def _work(run: Simulation, key: str) -> Work:
    info = run.graph.thread(key)
    assert info is not None
    return info.work
