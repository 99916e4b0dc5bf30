"""Strategies inside strategies: a scope shows a run its own part of the graph, and costs what changed."""

import random
from dataclasses import replace
from typing import Any

import pytest

from researcher.graph import ThoughtGraph
from researcher.protocols import Strategy
from researcher.strategies import load_strategy
from researcher.strategies.base import seed_of
from researcher.strategies.scoped import Scopes
from researcher.strategies.vote import Vote
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.testing.strategy_conformance import check_strategy
from researcher.types import Answer, Message, Outcome, Task, Work
from researcher.views import Plan, View

TASK = Task(question="What is it?")
SAID = (Message(role="user", content="?"),)


class Relay:
    """Three threads in turn, each the child of the one before it; keeps what it was shown."""

    needs: frozenset[str] = frozenset()

    def __init__(self, name: str = "relay") -> None:
        self.name = name
        self.views: list[View] = []

    def plan(self, view: View) -> Plan:
        self.views.append(replace(view, in_flight=dict(view.in_flight)))
        done = view.graph.threads(self.name)
        if view.in_flight:
            return Plan()
        if len(done) == 3:
            answer = done[-1].answer or ""
            return Plan(answer=Answer(text=answer, canonical=answer))
        parent = done[-1].key if done else ""
        uses = (parent,) if parent else ()
        key = f"step{len(done)}"
        seeded = Work(key=key, messages=SAID, group=self.name, parent=parent, uses=uses)
        return Plan(start=(seeded,), cancel=("gone",))


class Two:
    """Two relays side by side in scopes of their own, under the same name."""

    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.inner = [Relay(), Relay()]

    def plan(self, view: View) -> Plan:
        scopes = Scopes.of(view, "pair")
        plans = [scopes.plan(view, label, inner, free=view.free) for label, inner in zip("ab", self.inner, strict=True)]
        if all(plan.answer for plan in plans):
            return Plan(answer=plans[0].answer)
        return Plan(start=tuple(work for plan in plans for work in plan.start), cancel=plans[0].cancel)


def answer(work: Work) -> Reply:
    return Reply(f"<answer>{work.key}</answer>", state=f"state of {work.key[-1]}")


def test_works_get_the_names_of_the_whole_graph() -> None:
    run = simulate(Two(), TASK, answer)
    assert run.started[:4] == ["pair/a/step0", "pair/b/step0", "pair/a/step1", "pair/b/step1"]
    second = run.graph.thread("pair/b/step1")
    assert second is not None
    work = second.work
    assert (work.parent, work.uses, work.group) == ("pair/b/step0", ("pair/b/step0",), "pair/relay")


def test_a_run_sees_its_own_threads_under_its_own_names() -> None:
    two = Two()
    run = simulate(two, TASK, answer)
    last = two.inner[1].views[-1]
    assert [thread.key for thread in last.graph.threads()] == ["step0", "step1", "step2"]
    assert [thread.key for thread in last.graph.threads("relay")] == ["step0", "step1", "step2"]
    assert last.graph.threads("another") == []
    thread = last.graph.thread("step1")
    assert thread is not None
    assert (thread.answer, thread.work.parent, thread.work.group) == ("pair/b/step1", "step0", "relay")
    assert last.graph.thread("pair/b/step1") is None
    assert last.graph.state("state of 1") == ["step1"]
    assert list(run.graph.state("state of 1")) == ["pair/a/step1", "pair/b/step1"]


def test_a_run_is_told_what_changed_in_its_part_and_what_is_in_flight() -> None:
    two = Two()
    simulate(two, TASK, answer)
    first = two.inner[0].views
    assert [list(view.in_flight) for view in first[:3]] == [[], [], ["step1"]]
    assert [thread.key for thread in first[-1].graph.changes(0)] == ["step0", "step1", "step2"]
    seen = first[-2].graph.seq
    assert [thread.key for thread in first[-1].graph.changes(seen)] in ([], ["step2"])
    assert list(first[-1].graph.changes(first[-1].graph.seq)) == []


def test_memos_and_seeds_are_apart() -> None:
    two = Two()
    simulate(two, TASK, answer)
    one, other = (inner.views[-1] for inner in two.inner)
    assert one.memo is not other.memo
    assert one.seed == seed_of(0, "pair/a/") != other.seed
    assert one.task is TASK


def test_a_cancel_goes_to_the_run_s_own_thread() -> None:
    graph = ThoughtGraph()
    plan = Scopes("pair").plan(View(TASK, graph, {}, 3, UNLIMITED), "b", Relay(), free=3)
    assert plan.cancel == ("pair/b/gone",)


def test_a_scope_never_starts_more_than_it_was_offered() -> None:
    plan = Scopes("pair").plan(View(TASK, ThoughtGraph(), {}, 9, UNLIMITED), "b", Vote(n=8), free=3)
    assert len(plan.start) == 3


def reply(work: Work) -> Reply:
    rng = random.Random(work.sampling.seed)
    if work.role == "planner":
        return Reply("1. Who?\n2. When?")
    final = "thinking\n" if work.kind == "step" and not work.parent else f"<answer>{rng.randrange(3)}</answer>"
    return Reply(final, rng.random(), score=rng.random() if work.scorer else None)


NESTED = [
    {"n": 5, "over": "vote", "over_params": {"n": 3}},
    {"n": 5, "over": "vote", "stop": "full", "over_params": {"n": 3, "stop": "beta"}},
    {"n": 7, "over": "vote", "stop": "beta", "over_params": {"n": 2}},
    {"n": 3, "over": "refine", "over_params": {"rounds": 2}},
    {"n": 3, "over": "budget_forcing"},
    {"n": 2, "over": "best_of_n", "over_params": {"n": 3, "scorer": "orm"}},
    {"n": 2, "over": "best_of_n", "over_params": {"n": 2, "scorer": "prm", "aggregate": "min"}},
    {"n": 2, "over": "research", "over_params": {"samples": 2, "writers": 1}},
    {"n": 2, "over": "vote", "over_params": {"n": 2, "over": "vote", "over_params": {"n": 2}}},
]


@pytest.mark.parametrize("params", NESTED, ids=lambda params: f"{params['over']}-{params.get('stop', '')}")
def test_a_vote_over_runs_conforms(params: dict[str, object]) -> None:
    check_strategy(load_strategy("vote", params), TASK, reply)


def test_the_votes_are_those_of_the_runs() -> None:
    """Three runs of three threads: two of the runs say a, though b has more threads."""
    said = {"0": "aab", "1": "aab", "2": "bbb"}

    def each(work: Work) -> Reply:
        _, number, _, thread = work.key.split("/")
        return Reply(f"<answer>{said[number][int(thread)]}</answer>")

    strategy = Vote(n=3, stop="full", over="vote", over_params={"n": 3, "stop": "full"})
    run = simulate(strategy, TASK, each)
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("a", 2, 3)
    assert run.answer.reason.startswith("the vote of 3 runs of vote is complete")


def test_a_decided_vote_over_runs_begins_no_more_and_stops_the_rest() -> None:
    def slow(work: Work) -> Reply:
        return Reply("<answer>a</answer>", 1.0 if int(work.key.split("/")[1]) < 3 else 50.0)

    strategy = Vote(n=5, over="vote", over_params={"n": 3, "stop": "full"})
    run = simulate(strategy, TASK, slow)
    assert run.answer is not None
    assert run.answer.votes == 3
    assert set(run.cancelled) == {f"vote/{i}/vote/{j}" for i in (3, 4) for j in range(3)}


def test_runs_draw_different_samples() -> None:
    run = simulate(Vote(n=4, stop="full", over="vote", over_params={"n": 2, "stop": "full"}), TASK, reply)
    seeds = {thread.work.sampling.seed for thread in run.graph.threads()}
    assert len(seeds) == 8


def test_greedy_runs_take_the_temperature_of_the_vote() -> None:
    run = simulate(Vote(n=2, over="budget_forcing", temperature=0.6), TASK, reply)
    assert {thread.work.sampling.temperature for thread in run.graph.threads()} == {0.6}
    own = simulate(Vote(n=2, over="refine"), TASK, reply)
    assert {thread.work.sampling.temperature for thread in own.graph.threads()} == {0.7}


def test_runs_that_all_fail_say_why() -> None:
    broken = Reply("", outcome=Outcome.FAILED, detail="connection refused")
    run = simulate(Vote(n=3, over="refine"), TASK, lambda _: broken)
    assert run.failure is not None
    assert run.failure.startswith("none of 3 runs of refine gave an answer; ")
    assert "connection refused" in run.failure


def test_what_the_runs_need_the_vote_needs() -> None:
    assert Vote(over="budget_forcing").needs == {"steps"}
    assert Vote(over="best_of_n").needs_verdicts
    assert Vote(over="best_of_n", over_params={"scorer": "orm"}).scorers == ("orm",)


class Watched:
    """A strategy that is watched while it plans in scopes."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.asked = 0

    @property
    def needs(self) -> frozenset[str]:
        return self.strategy.needs

    def plan(self, view: View) -> Plan:
        self.asked += 1
        return self.strategy.plan(view)


@pytest.mark.parametrize("slots", [7, 1000])
def test_a_plan_asks_only_the_runs_that_changed(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 runs of two threads: whatever the order of their ends, the runs are asked a few times each."""
    inner = Watched(Vote(n=2, stop="full"))
    monkeypatch.setattr(Vote, "voter", inner)
    cost = plan_cost(Vote(n=150, stop="full", over="vote"), TASK, reply, slots=slots)
    assert cost.run is not None
    threads = len(cost.run.started)
    assert threads == 300
    assert inner.asked <= 2.5 * threads  # at its start, at each end, and where slots became free
    assert cost.reads <= 6 * threads


def test_a_spent_budget_lets_the_runs_end_with_what_they_have() -> None:
    def budget(run: Simulation):
        return UNLIMITED._replace(spendable=len(run.ended) < 4)

    strategy = Vote(n=50, stop="full", over="vote", over_params={"n": 3, "stop": "full"})
    run = simulate(strategy, TASK, reply, slots=2, budget=budget)
    assert run.answer is not None
    assert run.answer.of == 2
    assert len(run.started) <= 6


STEPWISE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("beam", {"n": 2, "m": 1}),
    ("dvts", {"n": 2, "m": 2}),
    ("rebase", {"n": 2}),
    ("particle_filter", {"n": 2}),
    ("mcts", {"iterations": 12}),
    ("tree", {"thoughts": "sample", "evaluate": "scores", "scorer": "prm", "breadth": 2, "keep": 1, "depth": 3}),
    ("ab_mcts", {"n": 6, "scorer": "judge"}),
    ("refine", {}),
    ("rsa", {"population": 4, "rounds": 2, "k": 2}),
    ("graph", {"scorer": "judge"}),
    ("best_of_n", {"n": 3, "scorer": "prm", "aggregate": "last"}),
    ("budget_forcing", {}),
)


@pytest.mark.parametrize(("over", "params"), STEPWISE, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("slots", [2, 3, 5])
def test_a_run_whose_slots_others_have_waits_and_does_not_end(over: str, params: dict[str, Any], slots: int) -> None:
    """All five vote, whoever gets the slots first, and none says that a budget ended it: there is none."""

    def reply(work: Work) -> Reply:
        seconds = random.Random(work.key).random()
        last = work.key.rpartition("/")[2]  # `0.1.0`, or of best_of_n the number of the step
        if work.kind == "step" and work.sampling.stop and last.count(".") < 3 and not work.key.endswith("/3"):
            return Reply(f"on {work.key}\n", score=0.5, seconds=seconds, tokens=10)
        return Reply("<answer>9</answer>", score=0.9, seconds=seconds, tokens=10)

    vote = load_strategy("vote", {"n": 5, "stop": "full", "over": over, "over_params": params})
    run = simulate(vote, Task(question="q"), reply, slots=slots)
    assert run.answer is not None
    assert (run.answer.votes, run.answer.of, run.limited) == (5, 5, False)
