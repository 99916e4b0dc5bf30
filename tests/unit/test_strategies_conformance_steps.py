"""Searches over steps pass the conformance suite, come to one answer whatever the timing, and plan in constant time."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.protocols import Strategy
from researcher.strategies.beam import Beam
from researcher.strategies.dvts import DVTS
from researcher.strategies.particle_filter import ParticleFilter
from researcher.strategies.rebase import Rebase
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.testing.strategy_conformance import check_it_goes_on_after_a_crash, check_strategy
from researcher.types import Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import Plan, View

TASK = Task(question="Make 24 of 4 9 10 13.")
SEARCHES: list[Any] = [
    Beam(n=4),
    Beam(n=6, m=3, choose="naive"),
    Beam(n=4, m=2, shrink=False, merge=False, choose="majority"),
    DVTS(n=4, m=2),
    DVTS(n=4, m=2, lookahead=1, aggregate="mean"),
    Rebase(n=5),
    Rebase(n=4, aggregate="prod", choose="naive"),
    ParticleFilter(n=4),
    ParticleFilter(n=5, entropic=True, choose="majority"),
]
NAMES = [f"{s.name}-{i}" for i, s in enumerate(SEARCHES)]
searches = pytest.mark.parametrize("search", SEARCHES, ids=NAMES)


def writer(hazard: float = 0.3, *, timing: int = 0, exact: bool = False) -> Callable[[Work], Reply]:
    """Steps that come to one of three answers with this hazard, and after three of them in any case, now and then to
    no good end; `timing` sets how long they take and nothing else; `exact`: scores of 0 and 1 alone, as a rule has."""

    def reply(work: Work) -> Reply:
        random = Random(f"step/{work.key}")
        seconds = Random(f"{timing}/{work.key}").uniform(0.1, 9.0)
        ends, score, turn = random.random() < hazard, random.uniform(0.05, 0.999), random.random()
        ends = ends or work.key.count(".") > 3
        if exact:
            score = float(score > 0.4)
        if turn < 0.04:
            return Reply("", seconds=seconds, outcome=Outcome.EXHAUSTED, detail="the step reached its token limit")
        if turn < 0.06:
            return Reply("?\n", seconds=seconds, detail="prm could not score it: no logprobs")
        if ends:
            return Reply(f"<answer>{random.randrange(3)}</answer>", seconds=seconds, score=score)
        return Reply(f"{random.randrange(9)}\n", seconds=seconds, score=score, state=f"state {random.randrange(40)}")

    return reply


@searches
def test_searches_over_steps_conform(search: Strategy) -> None:
    check_strategy(search, TASK, writer())


@searches
def test_it_goes_on_after_a_crash_at_any_event(search: Strategy) -> None:
    check_it_goes_on_after_a_crash(search, TASK, writer(0.7), crashes=10_000)


@searches
@settings(max_examples=6, deadline=None)
@given(timing=st.integers(1, 10_000), slots=st.sampled_from([1, 2, 5, 40]), exact=st.booleans())
def test_the_answer_depends_on_what_is_said_and_not_on_when(
    search: Strategy, timing: int, slots: int, exact: bool
) -> None:
    plain = simulate(search, TASK, writer(exact=exact), seed=3)
    other = simulate(search, TASK, writer(timing=timing, exact=exact), seed=3, slots=slots)
    assert (plain.answer and plain.answer.canonical) == (other.answer and other.answer.canonical)


@searches
def test_after_a_crash_at_any_event_the_answer_is_the_same(search: Strategy) -> None:
    whole = simulate(search, TASK, writer(), slots=3, seed=1)
    assert whole.answer is not None
    for keep in range(1, len(whole.events), max(1, len(whole.events) // 12)):
        resumed = simulate(search, TASK, writer(), slots=3, seed=1, log=whole.events[:keep])
        assert resumed.answer is not None
        assert resumed.answer.canonical == whole.answer.canonical


@searches
def test_steps_are_one_turn_of_the_assistant_and_each_is_scored(search: Any) -> None:
    run = simulate(search, TASK, writer())
    for info in run.graph.threads():
        work = info.work
        assert (work.kind, work.scorer, work.verify) == ("step", "prm", True)
        assert work.sampling.stop == ("\n",)
        assert work.sampling.keep_stop
        assert bool(work.messages) is not bool(work.parent)
    seeds = [info.work.sampling.seed for info in run.graph.threads()]
    assert len(set(seeds)) == len(seeds)
    assert run.answer is not None
    assert run.answer.body.count("<answer>") == 1
    assert run.answer.body.endswith(f"<answer>{run.answer.text}</answer>")


@searches
def test_no_score_at_all_is_a_failure_that_says_why(search: Strategy) -> None:
    run = simulate(search, TASK, lambda _: Reply("on\n", detail="prm could not score it: the server gives no logprobs"))
    assert run.answer is None
    assert "the scorer prm could not score any of the" in (run.failure or "")
    assert "the server gives no logprobs" in (run.failure or "")
    assert len(run.started) <= 16


@searches
def test_dead_ends_everywhere_are_a_failure_with_counts(search: Any) -> None:
    def reply(work: Work) -> Reply:
        return Reply("on\n", score=0.0 if work.parent else 0.5)

    run = simulate(search, TASK, reply)
    assert run.answer is None
    assert f"of {len(run.started)} steps" in (run.failure or "").replace("among", "of")
    assert "scored no more than 0" in (run.failure or "")


@searches
def test_a_path_that_never_ends_stops_at_the_depth(search: Any) -> None:
    run = simulate(search.model_copy(update={"depth": 5}), TASK, lambda _: Reply("on\n", score=0.5))
    assert "reached the depth of 5" in (run.failure or "")
    assert max(len(run.graph.path(key)) for key in run.started) == 2 + 5


@searches
def test_an_answer_that_is_verified_ends_it_at_once(search: Any) -> None:
    def reply(work: Work) -> Reply:
        verdict = Verdict(status=VerdictStatus.CORRECT, by="game24")
        return Reply("<answer>24</answer>", seconds=float(len(work.key)), score=0.1, verdict=verdict)

    task = Task(question="Make 24.", verifier="game24")
    run = simulate(search, task, reply)
    assert run.answer is not None
    assert (run.answer.text, run.answer.supported, len(run.ended)) == ("24", True, 1)
    late = simulate(search.model_copy(update={"stop_when_verified": False}), task, reply)
    assert len(late.ended) > 1


@searches
def test_a_spent_budget_is_said(search: Strategy) -> None:
    plans: list[Plan] = []
    run = simulate(
        Watched(search, plans),
        TASK,
        lambda _: Reply("on\n", score=0.5),
        slots=2,
        budget=lambda s: UNLIMITED._replace(spendable=len(s.ended) < 3),
    )
    assert run.answer is None
    assert len([key for key in run.started if not key.endswith("/last")]) <= 4  # that one has the reserve
    assert plans[-1].limited


class Watched:
    """Notes the plans of a strategy, or how many Python calls they take."""

    def __init__(self, strategy: Strategy, plans: list[Plan], calls: list[int] | None = None) -> None:
        self._strategy, self._plans, self._calls = strategy, plans, calls

    @property
    def needs(self) -> frozenset[str]:
        return self._strategy.needs

    def plan(self, view: View) -> Plan:
        count = 0

        def note(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        if self._calls is None:
            self._plans.append(self._strategy.plan(view))
            return self._plans[-1]
        sys.setprofile(note)
        try:
            return self._strategy.plan(view)
        finally:
            sys.setprofile(None)
            self._calls.append(count)


@pytest.mark.slow
@pytest.mark.parametrize(
    "search",
    [Beam(n=12, m=4, depth=90), DVTS(n=12, m=4, depth=90), Rebase(n=12, depth=90), ParticleFilter(n=12, depth=90)],
    ids=lambda s: s.name,
)
def test_a_plan_costs_what_is_new_and_not_what_is_there(search: Any) -> None:
    calls: list[int] = []

    def endless(work: Work) -> Reply:
        random = Random(work.key)
        return Reply(f"{random.random()}\n", seconds=random.random(), score=random.uniform(0.4, 0.6))

    run = simulate(Watched(search, [], calls), TASK, endless)
    assert len(run.started) > 1_000
    quarter = len(calls) // 4
    early, late = math.fsum(calls[quarter // 2 : quarter]) * 2, math.fsum(calls[-quarter - 1 : -1])
    assert late < 1.3 * early, f"{late / quarter:.0f} calls a plan after {early / quarter:.0f}"
    assert plan_cost(search, TASK, endless).reads_per_plan <= 2.0  # a thread as it starts and as it ends


def test_the_memo_is_a_fold_of_the_graph_at_any_moment() -> None:
    """Two plans of one view are equal, and so is a third without what the first two kept."""

    class Twice(Watched):
        def plan(self, view: View) -> Plan:
            plan = self._strategy.plan(view)
            assert plan == self._strategy.plan(view) == self._strategy.plan(replace(view, memo={}))
            return plan

    runs: list[Simulation] = [simulate(Twice(s, []), TASK, writer(exact=True), slots=7) for s in SEARCHES]
    assert all(run.answer is not None for run in runs)
