"""Recursive self-aggregation: its calls, who reads whom, and that nobody waits for more than his parents."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from researcher import Orchestrator
from researcher.errors import UserError
from researcher.graph.nodes import EdgeKind, thread_id
from researcher.strategies import load_strategy
from researcher.strategies.rsa import RSA
from researcher.testing.scripted_model import ScriptedModel
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import ModelRequest, Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import BudgetLeft

TASK = Task(question="What is it?")


def place(key: str) -> tuple[int, int]:
    _, number, member = key.split("/")
    return int(number), int(member)


def different(work: Work) -> Reply:
    """Every member has an answer of its own."""
    return Reply(f"<answer>{work.key}</answer>")


def failing(*keys: str) -> Callable[[Work], Reply]:
    def reply(work: Work) -> Reply:
        if work.key in keys:
            return Reply("", outcome=Outcome.FAILED, detail="the server is down")
        return different(work)

    return reply


def parents(run: Simulation) -> dict[str, tuple[str, ...]]:
    return {thread.key: thread.work.uses for thread in run.graph.threads()}


def test_the_papers_setting_makes_sixteen_calls_in_each_of_ten_rounds() -> None:
    run = simulate(RSA(), TASK, different)
    assert len(run.started) == 160
    assert {number: sum(place(key)[0] == number for key in run.started) for number in range(10)} == dict.fromkeys(
        range(10), 16
    )
    for key, read in parents(run).items():
        number, _ = place(key)
        assert len(set(read)) == len(read) == (4 if number else 0)
        assert {place(other)[0] for other in read} <= {number - 1}
    assert run.seconds == 10.0, "ten rounds deep"


def test_the_draws_differ_by_member_and_by_seed_and_repeat() -> None:
    one, same, other = (parents(simulate(RSA(rounds=3), TASK, different, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len({read for key, read in one.items() if place(key)[0]}) > 25, "32 draws of 4 in 16"
    read_once = {member for read in one.values() for member in read}
    assert len(read_once) > 28, "the draws are spread over the population"


def test_each_member_reads_its_parents_words() -> None:
    run = simulate(RSA(population=4, k=2, rounds=2), TASK, lambda work: Reply(f"since {work.key} <answer>a</answer>"))
    for thread in run.graph.threads("rsa/1"):
        prompt = thread.work.messages[-1].content
        assert prompt.index(f"since {thread.work.uses[0]}") < prompt.index(f"since {thread.work.uses[1]}")
        assert prompt.count("since") == 2
        assert run.graph.nx.has_edge(thread_id(thread.key), thread_id(thread.work.uses[0]), EdgeKind.USES)


def test_a_member_begins_when_its_own_parents_have_ended() -> None:
    """One slow member holds back its children alone, and they theirs."""
    slow = "rsa/0/3"
    run = simulate(RSA(rounds=3), TASK, lambda work: Reply(different(work).final, 50.0 if work.key == slow else 1.0))
    read = parents(run)
    before = set(run.started[: run.started.index(next(key for key in run.started if slow in read[key]))])
    waiting = {key for key in read if slow in read[key]}
    assert waiting, "somebody drew it"
    others = {key for key in read if place(key)[0] == 1} - waiting
    assert others <= before, "who did not draw it began without it"
    second = {key for key in read if place(key)[0] == 2 and not waiting.intersection(read[key])}
    assert second
    assert second <= before, "and so did their children"
    assert run.seconds == 52.0


def test_a_failed_parent_is_replaced_by_the_same_draw_whenever_it_fails() -> None:
    whole = parents(simulate(RSA(population=8, k=3, rounds=2), TASK, different))
    lost = {"rsa/0/1", "rsa/0/6"}
    for slots in (1, 3, 100):
        read = parents(simulate(RSA(population=8, k=3, rounds=2), TASK, failing(*lost), slots=slots))
        for key, members in read.items():
            assert not lost.intersection(members)
            if place(key)[0]:
                assert len(set(members)) == 3
                kept = [member for member in whole[key] if member not in lost]
                assert list(members[: len(kept)]) == kept, "those that did not fail stay"
        if slots == 1:
            first = read
        assert read == first, "it does not depend on who ended first"


def test_those_who_stand_in_for_failed_parents_are_drawn_too() -> None:
    lost = [f"rsa/0/{i}" for i in range(8)]
    read = parents(simulate(RSA(k=2, rounds=2), TASK, failing(*lost)))
    counts = Counter(member for members in read.values() for member in members)
    assert len(counts) > 5, "all eight that are left are read, not the first of them by everybody"
    assert max(counts.values()) < 10


def test_with_too_few_left_it_goes_on_with_those() -> None:
    read = parents(simulate(RSA(population=4, k=3, rounds=2), TASK, failing("rsa/0/0", "rsa/0/1")))
    assert {frozenset(members) for key, members in read.items() if place(key)[0]} == {frozenset({"rsa/0/2", "rsa/0/3"})}


def test_a_round_that_came_to_nothing_ends_it_and_is_named() -> None:
    keys = [f"rsa/1/{i}" for i in range(4)]
    run = simulate(RSA(population=4, k=2, rounds=5), TASK, failing(*keys))
    assert run.answer is None
    assert run.failure is not None
    assert run.failure.startswith("round 2: ")
    assert "the server is down" in run.failure
    assert len(run.started) == 8


def test_the_answer_is_the_majority_of_the_last_round() -> None:
    def reply(work: Work) -> Reply:
        number, member = place(work.key)
        return Reply(f"<answer>{'early' if number == 0 else 'ab'[member > 1]}</answer>")

    run = simulate(RSA(population=6, k=2, rounds=2), TASK, reply, slots=1)
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("b", 4, 6)


def test_the_last_round_stops_when_the_rest_cannot_change_it() -> None:
    run = simulate(RSA(population=16, rounds=2), TASK, lambda _: Reply("<answer>a</answer>"), slots=1)
    assert len(run.started) == 16 + 9


def test_a_verified_answer_ends_it_where_that_is_wanted() -> None:
    task = Task(question="q", verifier="exact", gold="a")

    def reply(work: Work) -> Reply:
        right = work.key == "rsa/1/2"
        status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
        return Reply(f"<answer>{'a' if right else 'b'}</answer>", verdict=Verdict(status=status, by="exact"))

    run = simulate(RSA(population=4, k=2, rounds=4), task, reply, slots=1)
    assert run.answer is not None
    assert run.answer.text == "a"
    assert len(run.started) == 7
    run = simulate(RSA(population=4, k=2, rounds=4, stop_when_verified=False), task, reply, slots=1)
    assert run.answer is not None
    assert run.answer.text == "b"


def test_a_spent_budget_gives_the_majority_of_the_last_whole_round() -> None:
    def budget(run: Simulation) -> BudgetLeft:
        return UNLIMITED._replace(spendable=len(run.ended) < 10)

    def reply(work: Work) -> Reply:
        return Reply(f"<answer>round {place(work.key)[0]}</answer>")

    run = simulate(RSA(population=4, k=2, rounds=5), TASK, reply, slots=1, budget=budget)
    assert run.limited
    assert run.answer is not None
    assert run.answer.text == "round 1"
    assert "round 2 of 5" in run.answer.reason


def test_more_parents_than_members_are_refused() -> None:
    with pytest.raises(UserError, match="cannot read k=5 of population=4"):
        load_strategy("rsa", {"population": 4, "k": 5})


@pytest.mark.anyio
async def test_on_a_model_a_resumed_run_makes_no_call_again(tmp_path: Path) -> None:
    params = {"population": 4, "k": 2, "rounds": 3}

    def reply(request: ModelRequest) -> str:
        return f"<answer>{request.sampling.seed}</answer>"

    model = ScriptedModel(reply)
    async with Orchestrator(model, home=tmp_path, concurrency=2) as orchestrator:
        run = await orchestrator.start(TASK, strategy="rsa", params=params, seed=5)
        async for event in run.events():
            if event.seq > 30:
                run.drain()
                break
        cut = await run.result()
        assert cut.interrupted
        assert 0 < model.calls < 12
        result = await (await orchestrator.resume(run.id)).result()
        again = await orchestrator.answer(TASK, strategy="rsa", params=params, seed=5)
    assert model.calls == 24, "12 calls a run, none of them twice"
    assert result.answer == again.answer
