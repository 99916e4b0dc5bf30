"""What every strategy must do, as one function: `check_strategy(MyStrategy(n=8), task, reply)` raises AssertionError.

`reply` says how each thread ends; give one that lets the strategy answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from researcher.events import Event, RunStarted, ThreadStarted
from researcher.graph import ThoughtGraph
from researcher.protocols import BudgetLeft, Plan, Strategy, View
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Outcome, Task, Work

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


def check_it_goes_on_after_a_crash(strategy: Strategy, task: Task, reply: Respond) -> None:
    """From any prefix of the log it asks only for work that is not there yet."""
    whole = simulate(strategy, task, reply, slots=3)
    for keep in range(len(whole.started)):
        graph = _opened(task)
        seq = graph.seq
        for key in whole.started[:keep]:
            seq += 1
            graph.apply(Event(seq, key, 0.0, ThreadStarted(work=_work(whole, key))))
        in_flight = {key: _work(whole, key) for key in whole.started[:keep]}
        plan: Plan = strategy.plan(View(task, graph, in_flight, 3, UNLIMITED))
        again = {work.key for work in plan.start} & set(in_flight)
        assert not again, f"asked again for {again}"


def _opened(task: Task) -> ThoughtGraph:
    graph = ThoughtGraph()
    graph.apply(Event(1, None, 0.0, RunStarted(task=task, strategy="under test")))
    return graph


def _work(run: Simulation, key: str) -> Work:
    info = run.graph.thread(key)
    assert info is not None
    return info.work
