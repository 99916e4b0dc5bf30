"""The strategies that revise, force and aggregate pass the conformance suite, in their usual forms and at the edges."""

import pytest

from researcher.events import Event, RunResumed, ThreadFinished
from researcher.protocols import Strategy
from researcher.strategies import load_strategy
from researcher.strategies.budget_forcing import BudgetForcing
from researcher.strategies.graph import GraphOfThoughts
from researcher.strategies.refine import Refine
from researcher.strategies.rsa import RSA
from researcher.testing.simulate import Reply, simulate
from researcher.testing.strategy_conformance import check_strategy
from researcher.types import FinishReason, Outcome, Task, Verdict, VerdictStatus, Work

TASK = Task(question="What is 6 times 7?", verifier="exact", gold="42")


def reply(work: Work) -> Reply:
    """Answers that differ by seed, one in five without an answer; thinking that ends by itself or at its cap."""
    seed = work.sampling.seed or 0
    seconds = 1.0 + seed % 7
    if work.kind == "step" and work.sampling.stop:
        cut = seed % 3 == 0
        outcome, finish = (Outcome.EXHAUSTED, FinishReason.LENGTH) if cut else (Outcome.ANSWERED, FinishReason.STOP)
        return Reply("<think>\nhm\n", seconds, outcome, finish=finish, tokens=50)
    if seed % 5 == 0 and work.kind != "step":
        return Reply("no idea", seconds, Outcome.EXHAUSTED)
    answer = seed % 4
    verdict = Verdict(status=VerdictStatus.WRONG, by="exact", score=answer / 10)
    return Reply(f"<answer>{answer}</answer>", seconds, verdict=verdict, score=answer / 10 if work.scorer else None)


SETTINGS: list[tuple[str, dict[str, object]]] = [
    ("budget_forcing", {}),
    ("budget_forcing", {"waits": 6, "thinking": 170, "least": 120}),
    ("budget_forcing", {"waits": 0}),
    ("refine", {}),
    ("refine", {"chains": 3, "temperatures": [0.3, 0.6, 1.0], "pick": "majority"}),
    ("refine", {"chains": 4, "pick": "best", "patience": 1}),
    ("refine", {"scorer": "orm", "rounds": 1}),
    ("rsa", {"population": 6, "k": 3, "rounds": 4}),
    ("rsa", {"population": 5, "k": 5, "rounds": 2}),
    ("rsa", {"population": 3, "k": 1, "rounds": 1}),
    ("graph", {}),
    ("graph", {"scorer": "orm", "stop_when_verified": False}),
    ("graph", {"operations": [{"op": "generate", "n": 5}, {"op": "improve"},
                              {"op": "aggregate", "n": 3, "of": 2}]}),
    ("graph", {"operations": [{"op": "generate", "n": 6}, {"op": "validate_and_improve", "rounds": 3}]}),
    ("graph", {"operations": [{"op": "generate", "n": 6}, {"op": "score"}, {"op": "keep_best", "n": 2},
                              {"op": "improve"}, {"op": "score"}, {"op": "keep_best"}]}),
    ("vote", {"over": "budget_forcing", "n": 3}),
    ("vote", {"over": "refine", "n": 3, "over_params": {"rounds": 2}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters"), SETTINGS)
def test_they_conform(name: str, parameters: dict[str, object]) -> None:
    check_strategy(load_strategy(name, parameters), TASK, reply)


@pytest.mark.parametrize(("name", "parameters"), SETTINGS)
def test_threads_that_are_opened_again_do_no_harm(name: str, parameters: dict[str, object]) -> None:
    """With a larger budget, threads that a limit ended go on; others may have begun from what they had come to."""
    strategy = load_strategy(name, parameters)
    whole = simulate(strategy, TASK, reply, slots=3)
    for keep in range(3, len(whole.events), 1 + len(whole.events) // 15):
        log = whole.events[:keep]
        ended = [event.thread for event in log if isinstance(event.body, ThreadFinished) and event.thread]
        for reopened in (ended, ended[::3]):
            again = Event(keep + 1, None, 0.0, RunResumed(reopened=tuple(reopened)))
            resumed = simulate(strategy, TASK, reply, slots=1000, log=[*log, again])
            assert resumed.answer is not None, resumed.failure
            assert len(resumed.started) == len(set(resumed.started))


def test_they_answer_tasks_with_tools_and_quotes_too() -> None:
    task = Task(question="Who is older, Ana or Bo?", tools=("search",))
    strategies: list[Strategy] = [Refine(), RSA(population=4, k=2, rounds=2), GraphOfThoughts(scorer="orm")]
    for strategy in strategies:
        check_strategy(strategy, task, reply)


def test_none_begins_without_what_it_needs() -> None:
    assert BudgetForcing().needs == {"steps"}
    assert GraphOfThoughts().needs_verdicts
    assert not GraphOfThoughts(scorer="orm").needs_verdicts
    assert Refine(pick="best").needs_verdicts
    assert not Refine(pick="best", scorer="orm").needs_verdicts
    assert not Refine().needs_verdicts
    assert GraphOfThoughts(scorer="orm").scorers == Refine(scorer="orm").scorers == ("orm",)
