"""Budget forcing: what each piece may have, what stands in the turn, and when the thinking ends."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from researcher import Orchestrator
from researcher.strategies.budget_forcing import BudgetForcing
from researcher.testing.scripted_model import ScriptedModel
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import (
    Capabilities,
    Completion,
    FinishReason,
    Message,
    ModelRequest,
    Outcome,
    Task,
    Usage,
    Verdict,
    VerdictStatus,
    Work,
)
from researcher.views import BudgetLeft

TASK = Task(question="What is it?")
ANSWER = Reply("<answer>42</answer>", tokens=7)


def thinking(*lengths: int, opening: str = "<think>\n") -> Callable[[Work], Reply]:
    """A model whose thinking would end after so many tokens in each piece, if it may."""

    def reply(work: Work) -> Reply:
        if work.verify:
            return ANSWER
        number = int(work.key.split("/")[1])
        text = f"{opening if number == 0 else ' '}thought {number}\n"
        wanted, cap = lengths[number], work.sampling.max_tokens or 0
        if wanted > cap:
            return Reply(text, outcome=Outcome.EXHAUSTED, finish=FinishReason.LENGTH, tokens=cap)
        return Reply(text, tokens=wanted)

    return reply


def caps(run: Simulation) -> list[int | None]:
    return [thread.work.sampling.max_tokens for thread in run.graph.threads()]


def turn(run: Simulation, key: str) -> str:
    """What the assistant said, and what was put into its mouth."""
    return "".join(message.content for message in run.graph.messages(key) if message.role == "assistant")


def test_each_piece_may_have_what_is_left_of_the_cap() -> None:
    strategy = BudgetForcing(thinking=1000, waits=3, max_tokens=64)
    run = simulate(strategy, TASK, thinking(300, 250, 200, 250))
    assert caps(run) == [1000, 700, 450, 250, 64]
    assert run.answer is not None
    assert run.answer.text == "42"
    last = run.started[-1]
    assert turn(run, last) == (
        "<think>\nthought 0\nWait thought 1\nWait thought 2\nWait thought 3\n</think>\n\n<answer>42</answer>"
    )
    assert [thread.work.parent for thread in run.graph.threads()] == ["", *run.started[:-1]]


def test_the_pieces_never_pass_the_cap_however_many_there_are() -> None:
    """The reference harness would sample up to (waits + 1) caps here."""
    rng = random.Random(3)
    cut = 0
    for _ in range(200):
        cap, waits = rng.randint(1, 30), rng.randint(0, 8)
        lengths = [rng.randint(1, 12) for _ in range(waits + 1)]
        run = simulate(BudgetForcing(thinking=cap, waits=waits), TASK, thinking(*lengths))
        thoughts = [thread for thread in run.graph.threads() if not thread.work.verify]
        used = sum(thread.sampled for thread in thoughts)
        whole = sum(lengths)
        assert used == min(cap, whole), "it thinks as long as it may, and no longer"
        assert all(cap and cap > 0 for cap in caps(run)), "a piece of no tokens is not asked for"
        assert run.answer is not None
        cut += whole > cap
    assert 20 < cut < 180, "both cases were there"


def test_thinking_that_ends_late_enough_is_let_end() -> None:
    run = simulate(BudgetForcing(thinking=1000, waits=5, least=400), TASK, thinking(150, 200, 80))
    assert caps(run)[:-1] == [1000, 850, 650]
    assert len(run.started) == 4, "150 and 350 tokens were too few, 430 were not"


def test_at_the_cap_the_thinking_is_closed_and_the_answer_asked_for() -> None:
    run = simulate(BudgetForcing(thinking=100, waits=3, final="Final Answer:"), TASK, thinking(60, 99))
    assert turn(run, run.started[-1]).endswith("Wait thought 1\n</think>\n\nFinal Answer:<answer>42</answer>")
    assert len(run.started) == 3
    by_itself = simulate(BudgetForcing(thinking=100, waits=0, final="Final Answer:"), TASK, thinking(60))
    assert "Final Answer:" not in turn(by_itself, by_itself.started[-1])


def test_thinking_that_breaks_off_in_a_line_is_closed_on_the_next() -> None:
    cut = Reply("<think>\nhalf a", outcome=Outcome.EXHAUSTED, finish=FinishReason.LENGTH, tokens=9)
    run = simulate(BudgetForcing(thinking=9), TASK, lambda work: ANSWER if work.verify else cut)
    assert turn(run, run.started[-1]) == "<think>\nhalf a\n</think>\n\n<answer><answer>42</answer>"


def test_a_model_that_does_not_think_between_marks_is_asked_for_its_final_answer() -> None:
    said = iter(["It is 41. <answer>41</answer>", " no: <answer>42</answer>", "<answer>42</answer>"])
    run = simulate(BudgetForcing(waits=1), TASK, lambda _: Reply(next(said), tokens=5))
    last = turn(run, run.started[-1])
    assert "think>" not in last
    assert last == ("It is 41. <answer>41</answer>Wait no: <answer>42</answer>\n\n<answer><answer>42</answer>")
    assert run.answer is not None
    assert run.answer.text == "42"


def test_a_template_that_opens_the_thinking_itself_is_closed_like_any_other() -> None:
    run = simulate(BudgetForcing(waits=0), TASK, thinking(5, opening=""))
    assert turn(run, run.started[-1]) == "thought 0\n</think>\n\n<answer>42</answer>"


def test_only_the_answer_is_judged_and_may_spend_the_reserve() -> None:
    run = simulate(BudgetForcing(waits=1), TASK, thinking(5, 5))
    works = [thread.work for thread in run.graph.threads()]
    assert [(work.verify, work.reserved) for work in works] == [(False, False), (False, False), (True, True)]
    assert [work.sampling.stop for work in works] == [("</think>",), ("</think>",), ()]
    assert {work.kind for work in works} == {"step"}


def test_a_spent_budget_closes_the_thinking_at_once_and_says_so() -> None:
    def budget(run: Simulation) -> BudgetLeft:
        return UNLIMITED._replace(spendable=not run.ended)

    run = simulate(BudgetForcing(waits=4), TASK, thinking(5, 5, 5, 5, 5), budget=budget)
    assert run.started == ["force/0", "force/1"]
    assert run.answer is not None
    assert run.limited, "it would have thought on"


def test_a_refused_wait_goes_on_to_the_answer() -> None:
    refused = Reply("", outcome=Outcome.EXHAUSTED, detail="tokens 100 of 100")
    run = simulate(
        BudgetForcing(waits=1), TASK, lambda work: refused if work.key == "force/1" else thinking(5, 5)(work)
    )
    assert turn(run, run.started[-1]) == "<think>\nthought 0\nWait\n</think>\n\n<answer><answer>42</answer>"


@pytest.mark.parametrize("at", ["force/0", "force/1", "force/2"])
def test_a_broken_piece_fails_with_its_reason(at: str) -> None:
    broken = Reply("", outcome=Outcome.FAILED, detail="the server is down")
    run = simulate(BudgetForcing(), TASK, lambda work: broken if work.key == at else thinking(5, 5)(work))
    assert run.answer is None
    assert "the server is down" in (run.failure or "")
    assert run.started[-1] == at


def test_an_answer_that_never_comes_is_a_failure() -> None:
    silent = Reply("hm", outcome=Outcome.EXHAUSTED, finish=FinishReason.LENGTH, detail="the step reached its limit")
    run = simulate(BudgetForcing(), TASK, lambda work: silent if work.verify else thinking(5, 5)(work))
    assert run.answer is None
    assert "the step reached its limit" in (run.failure or "")


def test_tools_cannot_be_called_and_are_not_quietly_dropped() -> None:
    run = simulate(BudgetForcing(), Task(question="q", tools=("search", "read")), thinking(5, 5))
    assert run.started == []
    assert "search, read" in (run.failure or "")


def test_the_verdict_is_the_answers() -> None:
    verdict = Verdict(status=VerdictStatus.CORRECT, by="exact")
    task = Task(question="q", verifier="exact", gold="42")
    right = Reply("<answer>42</answer>", verdict=verdict)
    run = simulate(BudgetForcing(), task, lambda work: right if work.verify else thinking(5, 5)(work))
    assert run.answer is not None
    assert run.answer.supported is True


@pytest.mark.anyio
async def test_on_a_model_the_turn_is_one_conversation(tmp_path: Path) -> None:
    """The server is asked to continue what was said, and a Wait is part of it."""

    def reply(request: ModelRequest) -> Completion:
        final = "</think>" in request.prefix
        text = "<answer>42</answer>" if final else (" so 42.\n" if request.prefix else "<think>\nso 41.\n")
        message = Message(role="assistant", content=text)
        usage = Usage(prompt_tokens=20, completion_tokens=30, calls=1)
        return Completion(message=message, finish=FinishReason.STOP, model="m", usage=usage)

    model = ScriptedModel(reply, capabilities=Capabilities(prefill=True))
    async with Orchestrator(model, home=tmp_path) as orchestrator:
        result = await orchestrator.answer(TASK, strategy="budget_forcing", params={"thinking": 100, "waits": 2})
    assert result.answer is not None
    assert result.answer.text == "42"
    assert [request.prefix for request in model.requests] == [
        "",
        "<think>\nso 41.\nWait",
        "<think>\nso 41.\nWait so 42.\nWait",
        "<think>\nso 41.\nWait so 42.\nWait so 42.\n</think>\n\n",
    ]
    assert [request.sampling.max_tokens for request in model.requests] == [100, 70, 40, 1024]
    assert {request.raw for request in model.requests} == {True}
    assert len({request.messages for request in model.requests}) == 1
    assert result.usage.calls == 4


@pytest.mark.anyio
async def test_on_a_model_thinking_that_was_cut_goes_on_to_the_answer(tmp_path: Path) -> None:
    def reply(request: ModelRequest) -> Completion:
        cut = not request.prefix
        message = Message(role="assistant", content="<think>\nso 41, or" if cut else "42</answer>")
        finish = FinishReason.LENGTH if cut else FinishReason.STOP
        usage = Usage(prompt_tokens=20, completion_tokens=8, calls=1)
        return Completion(message=message, finish=finish, model="m", usage=usage)

    model = ScriptedModel(reply, capabilities=Capabilities(prefill=True))
    async with Orchestrator(model, home=tmp_path) as orchestrator:
        result = await orchestrator.answer(TASK, strategy="budget_forcing", params={"thinking": 8})
    assert model.requests[1].prefix == "<think>\nso 41, or\n</think>\n\n<answer>"
    assert result.answer is not None
    assert result.answer.text == "42"
