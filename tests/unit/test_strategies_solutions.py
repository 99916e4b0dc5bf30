"""What a search over steps does when its budget ends before any of its paths does."""

from __future__ import annotations

import pytest

from researcher.strategies.load import load_strategy
from researcher.testing.simulate import Reply, Simulation, simulate
from researcher.types import Task, Work
from researcher.views import BudgetLeft

TASK = Task(question="What is it?")


def reply(work: Work) -> Reply:
    """Steps without end, of which the third of a level is the best; what may go on to the end gives an answer."""
    if not work.sampling.stop:
        return Reply("the end\n<answer>7</answer>", score=0.5)
    return Reply(f"step {work.key}\n", score=0.9 if work.key.endswith("2") else 0.2)


def after(steps: int) -> object:
    """A budget of which only the reserve is left once so many steps started."""
    return lambda run: BudgetLeft(None, None, None, None, len(run.started) < steps, False)


@pytest.mark.parametrize("name", ["beam", "dvts", "rebase", "particle_filter"])
def test_the_reserve_goes_to_the_end_of_the_best_path(name: str) -> None:
    run = simulate(load_strategy(name, {"n": 4}), TASK, reply, budget=after(4))  # type: ignore[arg-type]
    assert run.started[-1] == f"{name}/last"
    info = run.graph.thread(f"{name}/last")
    assert info is not None
    assert info.work.reserved
    assert info.work.parent.endswith("2")
    assert run.answer is not None
    assert (run.answer.text, run.limited) == ("7", True)
    assert "goes on from the best" in run.answer.reason


@pytest.mark.parametrize("name", ["beam", "dvts", "rebase", "particle_filter"])
def test_it_is_asked_once_and_without_an_answer_it_is_a_failure(name: str) -> None:
    def mute(work: Work) -> Reply:
        return reply(work) if work.sampling.stop else Reply("I do not know", score=0.1)

    run = simulate(load_strategy(name, {"n": 4}), TASK, mute, budget=after(4))  # type: ignore[arg-type]
    assert run.answer is None
    assert run.failure is not None
    assert [key for key in run.started if key.endswith("/last")] == [f"{name}/last"]


@pytest.mark.parametrize("name", ["beam", "rebase", "particle_filter"])
def test_a_resumed_search_does_not_ask_again(name: str) -> None:
    strategy = load_strategy(name, {"n": 4})
    whole: Simulation = simulate(strategy, TASK, reply, budget=after(4))  # type: ignore[arg-type]
    again = simulate(strategy, TASK, reply, budget=after(0), log=whole.events[:-1])  # type: ignore[arg-type]
    assert again.answer is not None
    assert again.answer.text == "7"
    assert [key for key in again.started if key.endswith("/last")] in ([], [f"{name}/last"])
