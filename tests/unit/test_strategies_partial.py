"""Partial rollouts: pieces that continue each other, a run that waits, and turns that repeat themselves."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from researcher.strategies.load import load_strategy
from researcher.strategies.partial import Partial, in_a_loop
from researcher.testing.simulate import Reply, simulate
from researcher.testing.strategy_conformance import check_strategy
from researcher.types import FinishReason, Outcome, Task, Work

TASK = Task(question="Say it.")


def talk(work: Work) -> Reply:
    """Pieces of full length, then an answer; turn i has i + 1 pieces."""
    _, turn, piece = work.key.split("/")
    full = work.sampling.max_tokens or 0
    if int(piece) < int(turn):
        text = f"{Random(work.key).random()} "
        return Reply(text, outcome=Outcome.EXHAUSTED, finish=FinishReason.LENGTH, tokens=full)
    return Reply(f"<answer>{int(turn) % 2}</answer>", tokens=3)


@pytest.mark.parametrize("params", [{"n": 4}, {"n": 5, "repeats": 0, "piece": 16}], ids=str)
def test_it_conforms(params: dict[str, Any]) -> None:
    check_strategy(Partial(**params), TASK, talk)


def test_each_piece_continues_the_one_before_and_a_turn_has_its_limit() -> None:
    run = simulate(Partial(n=3, piece=10, max_tokens=25), TASK, talk)
    works = {info.key: info.work for info in run.graph.threads()}
    assert sorted(works) == ["partial/0/0", "partial/1/0", "partial/1/1", "partial/2/0", "partial/2/1", "partial/2/2"]
    assert [works[f"partial/2/{k}"].sampling.max_tokens for k in range(3)] == [10, 10, 5]
    assert [works[f"partial/2/{k}"].parent for k in range(3)] == ["", "partial/2/0", "partial/2/1"]
    assert len({work.sampling.seed for work in works.values()}) == len(works)
    assert run.answer is not None
    assert (run.answer.canonical, run.answer.votes, run.answer.of) == ("0", 2, 3)
    cut = simulate(Partial(n=3, piece=10, max_tokens=20), TASK, talk)
    assert "partial/2/2" not in cut.started


def test_a_run_waits_with_unfinished_turns_and_its_log_goes_on_with_more_pieces() -> None:
    whole = simulate(Partial(n=4, piece=10), TASK, talk)
    log = simulate(Partial(n=4, piece=10, pieces=1), TASK, talk)
    for pieces in (2, 3, 4):
        assert log.answer is None
        assert log.failure == f"{5 - pieces} of 4 turns go on in a later run"
        strategy = Partial(n=4, piece=10, pieces=pieces)
        assert strategy.waiting(log.graph) == 5 - pieces
        log = simulate(strategy, TASK, talk, log=log.events)
    assert log.answer == whole.answer
    assert {info.key: info.work.sampling for info in log.graph.threads()} == {
        info.key: info.work.sampling for info in whole.graph.threads()
    }


def test_a_turn_that_repeats_itself_is_stopped() -> None:
    def stuck(work: Work) -> Reply:
        again = work.key.startswith("partial/1/")
        text = "so we try again, " * 4 if again else f"{Random(work.key).random()} " * 3
        return Reply(text, outcome=Outcome.EXHAUSTED, finish=FinishReason.LENGTH, tokens=10)

    run = simulate(Partial(n=2, piece=10, max_tokens=100, repeats=8), TASK, stuck)
    assert sum(key.startswith("partial/1/") for key in run.started) == 2
    assert sum(key.startswith("partial/0/") for key in run.started) == 10
    assert Partial(n=2, piece=10, max_tokens=100, repeats=8).repeating(run.graph) == 1
    free = simulate(Partial(n=2, piece=10, max_tokens=100, repeats=0), TASK, stuck)
    assert len(free.started) == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ab" * 40, True), ("x" * 63, False), ("x" * 64, True), ("abcdefgh" * 7, False), ("abcdefgh" * 8, True),
        ("a beginning. " + "0123456789abc" * 8, True), ("0123456789abc" * 8 + " and an end.", False), ("", False),
        ("once upon a time there was a line that does not repeat itself at all, ever, in any way", False),
        ("9-4=5 left 5 7\n" * 8, True), ("9-4=5 left 5 7\n" * 7, False),
    ],
)  # fmt: skip
def test_what_counts_as_repeating(text: str, said: bool) -> None:
    assert in_a_loop(text, 8) is said


def test_an_answer_before_the_end_does_not_end_the_turn() -> None:
    def eager(work: Work) -> Reply:
        if work.key.endswith("/0"):
            return Reply("<answer>1</answer>", finish=FinishReason.LENGTH, tokens=10)
        return Reply(" no, <answer>2</answer>", tokens=5)

    run = simulate(Partial(n=1, piece=10), TASK, eager)
    assert run.started == ["partial/0/0", "partial/0/1"]
    assert run.answer is not None


def test_it_is_found_by_its_name_and_asks_for_steps() -> None:
    strategy = load_strategy("partial", {"n": 2, "style": "r1"})
    assert strategy.needs == {"steps"}
