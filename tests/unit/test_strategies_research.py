"""The research strategy, without an engine: stages, votes, findings, and honesty about missing evidence."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from researcher.errors import UserError
from researcher.strategies import load_strategy, strategy_names
from researcher.strategies.chain_of_thought import ChainOfThought
from researcher.strategies.research import Research
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Claim, Evidence, Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import View

TASK = Task(question="Who is older, Ana or Bo?", tools=("search", "read"))
EVIDENCE = (Evidence(sha256="ab" * 32, start=0, end=9),)


def claim(text: str) -> tuple[Claim, ...]:
    return (Claim(text=text, evidence=EVIDENCE),)


def team(
    parts: dict[str, Reply], split: str = "1. Age of Ana?\n2. Age of Bo?", write: str = ""
) -> Callable[[Work], Reply]:
    def reply(work: Work) -> Reply:
        if work.role == "planner":
            return Reply(split)
        if work.role == "writer":
            return Reply(write or "Ana is 40 [1]. Bo is 30 [2].\n<answer>Ana</answer>")
        question = work.messages[-1].content
        return parts.get(question) or parts[work.key]

    return reply


GOOD = {
    "Age of Ana?": Reply("<answer>40</answer>", claims=claim("Ana is 40.")),
    "Age of Bo?": Reply("<answer>30</answer>", claims=claim("Bo is 30.")),
}


def test_splits_researches_and_writes() -> None:
    run = simulate(Research(samples=4), TASK, team(GOOD))
    assert run.answer is not None
    assert run.answer.text == "Ana"
    assert run.answer.supported is True
    assert len(run.answer.claims) == 2
    assert run.started[0] == "plan"
    assert sum(key.startswith("part/") for key in run.started) == 8
    writer = next(thread for thread in run.graph.threads() if thread.work.role == "writer")
    assert '[1] Age of Ana? -> 40: "Ana is 40."' in writer.work.messages[-1].content
    assert writer.work.reserved


def test_both_parts_run_at_once() -> None:
    run = simulate(Research(samples=3), TASK, team(GOOD))
    assert run.most_at_once == 6


def test_a_settled_part_stops_its_surplus_threads() -> None:
    slow = {f"part/0/{i}": Reply("<answer>40</answer>", seconds=100.0, claims=claim("Ana is 40.")) for i in range(8)}
    slow |= {f"part/1/{i}": Reply("<answer>30</answer>", 1.0 if i < 5 else 50.0) for i in range(8)}
    run = simulate(Research(samples=8), TASK, team(slow))
    assert {key for key in run.cancelled if key.startswith("part/1")} == {f"part/1/{i}" for i in (5, 6, 7)}


def test_one_question_needs_no_synthesis() -> None:
    parts = {TASK.question: Reply("<answer>Ana</answer>", claims=claim("It was Ana."))}
    run = simulate(Research(samples=2), TASK, team(parts, split="1. Who else?"))
    assert run.answer is not None
    assert run.answer.text == "Ana"
    assert not any(key.startswith("write") for key in run.started)


def test_a_planner_that_says_nothing_leaves_the_question_whole() -> None:
    parts = {TASK.question: Reply("<answer>Ana</answer>", claims=claim("It was Ana."))}
    run = simulate(Research(samples=2), TASK, team(parts, split="\n\nlet me think\nabout it"))
    assert run.answer is not None
    assert run.answer.text == "Ana"


def test_an_answer_without_evidence_does_not_read_as_a_success() -> None:
    bare = {question: Reply(reply.final) for question, reply in GOOD.items()}
    run = simulate(Research(samples=2), TASK, team(bare))
    assert run.answer is not None
    assert run.answer.supported is False


def test_an_unknown_part_is_told_to_the_writer_and_the_answer_is_not_supported() -> None:
    parts = GOOD | {"Age of Bo?": Reply("nothing there", outcome=Outcome.EXHAUSTED)}
    run = simulate(Research(samples=2), TASK, team(parts))
    writer = next(thread for thread in run.graph.threads() if thread.work.role == "writer")
    assert "[2] Age of Bo? -> unknown" in writer.work.messages[-1].content
    assert run.answer is not None
    assert run.answer.supported is False


def test_a_synthesis_that_fails_leaves_the_findings() -> None:
    run = simulate(Research(samples=2), TASK, team(GOOD, write="I cannot"))
    assert run.answer is not None
    assert run.answer.text == "40; 30"
    assert "synthesis failed" in run.answer.reason
    assert run.answer.supported is False


def test_a_synthesis_that_names_what_nobody_found_is_not_supported() -> None:
    run = simulate(Research(samples=2), TASK, team(GOOD, write="Cy is older.\n<answer>Cy</answer>"))
    assert run.answer is not None
    assert (run.answer.text, run.answer.supported) == ("Cy", False)


def test_a_faithful_synthesis_wins_over_a_more_frequent_one_that_is_not() -> None:
    def reply(work: Work) -> Reply:
        return (
            Reply("<answer>Cy</answer>") if work.key.startswith("write") and work.key[-1] != "0" else team(GOOD)(work)
        )

    run = simulate(Research(samples=2), TASK, reply)
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.supported) == ("Ana", 1, True)


def test_no_finding_at_all_is_a_failure() -> None:
    broken = Reply("", outcome=Outcome.FAILED, detail="connection refused")
    run = simulate(Research(samples=2), TASK, team(dict.fromkeys(GOOD, broken)))
    assert run.answer is None
    assert "connection refused" in (run.failure or "")
    assert "4 of 4 threads failed" in (run.failure or "")


def test_when_the_budget_ends_the_writers_still_write_from_what_there_is() -> None:
    def budget(run: Simulation):
        return UNLIMITED._replace(spendable=len(run.ended) < 3)

    run = simulate(Research(samples=8), TASK, team(GOOD), slots=2, budget=budget)
    assert run.answer is not None
    assert run.answer.text == "Ana"
    assert sum(key.startswith("part/") for key in run.started) < 16


def test_writers_wait_for_a_slot_rather_than_be_given_up() -> None:
    graph = simulate(Research(samples=2), TASK, team(GOOD)).graph
    running = {"part/0/9": Work(key="part/0/9", messages=())}
    plan = Research(samples=2, writers=5).plan(View(TASK, graph, running, 0, UNLIMITED))
    assert (plan.answer, plan.failure, plan.start) == (None, None, ())


def test_a_plan_reads_what_is_new_and_nothing_else() -> None:
    """200 threads for each of two questions, whose answers never settle before the last."""

    def reply(work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        ending = team(GOOD, write="Ana is older.\n<answer>Ana</answer>")(work)
        if not work.key.startswith("part/"):
            return ending
        return Reply(f"<answer>{rng.randrange(10**9)}</answer>", rng.random())

    cost = plan_cost(Research(samples=200), TASK, reply, slots=20)
    assert cost.run is not None
    assert len(cost.run.started) > 390
    assert cost.reads <= 4 * len(cost.run.started)  # each thread at its start and its end, the planner at each plan


def test_a_verified_synthesis_is_supported_whatever_its_parts_are() -> None:
    def reply(work: Work) -> Reply:
        ending = team(GOOD)(work)
        verdict = Verdict(status=VerdictStatus.CORRECT, by="exact") if work.role == "writer" else None
        assert work.verify is (not work.key.startswith("part/"))
        return replace(ending, verdict=verdict)

    run = simulate(Research(samples=2), Task(question=TASK.question, tools=TASK.tools, verifier="exact"), reply)
    assert run.answer is not None
    assert run.answer.supported is True


def test_chain_of_thought_is_one_thread() -> None:
    run = simulate(ChainOfThought(), Task(question="2+2?"), lambda _: Reply("<answer>4</answer>"))
    assert run.started == ["cot"]
    assert run.answer is not None
    assert (run.answer.text, run.answer.supported) == ("4", None)


def test_the_built_in_strategies_are_found() -> None:
    assert {"chain_of_thought", "research", "vote"} <= set(strategy_names())


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("votes", {}, "did you mean vote"),
        ("vote", {"m": 3}, "no parameter 'm'"),
        ("vote", {"n": 0}, "parameter 'n'"),
        ("vote", {"stop": "never"}, "parameter 'stop'"),
        ("research", {"sample": 3}, "did you mean samples"),
    ],
)
def test_a_wrong_strategy_or_parameter_is_named(name: str, params: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_strategy(name, params)
