"""Chain of thought: how each style asks, with and without tools."""

import pytest

from researcher.engine.preflight import check_calls
from researcher.errors import UserError
from researcher.strategies import load_strategy
from researcher.strategies.prompts import answer_prompt, parse_answer, step_prompt
from researcher.testing.simulate import Reply, simulate
from researcher.types import Message, Task, Work

TASK = Task(question="2+2?")
EXAMPLES = [{"question": "1+1?", "answer": "2"}, {"question": "3+4?", "answer": "Three and four.\n<answer>7</answer>"}]


def asked(params: dict[str, object], task: Task = TASK, strategy: str = "chain_of_thought") -> Work:
    run = simulate(load_strategy(strategy, params), task, lambda _: Reply("<answer>4</answer>", score=1.0))
    assert run.answer is not None
    return run.graph.threads()[0].work


def test_zero_shot_asks_as_the_embedded_model_was_taught() -> None:
    prompt = answer_prompt("2+2?")
    assert asked({}).messages == (
        Message(role="system", content=prompt.system),
        Message(role="user", content=prompt.user),
    )
    assert asked({}).sampling.temperature == 0.0


def test_few_shot_shows_the_examples_as_turns_with_their_answers_marked() -> None:
    work = asked({"style": "few_shot", "examples": EXAMPLES})
    assert [message.role for message in work.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert [message.content for message in work.messages[1:]] == [
        "1+1?", "<answer>2</answer>", "3+4?", "Three and four.\n<answer>7</answer>", "2+2?",
    ]  # fmt: skip


def test_r1_shows_the_form_of_thinking_and_answering() -> None:
    system, user = asked({"style": "r1"}).messages
    for mark in ("<think>", "</think>", "<answer>", "</answer>"):
        assert mark in system.content
    assert user.content == "2+2?"
    assert parse_answer("<think> 2 and 2 <answer>5</answer>? </think> <answer> 4 </answer>") == "4"


def test_r1_keeps_what_tools_need_to_be_told() -> None:
    task = Task(question="Who?", tools=("search",))
    work = asked({"style": "r1"}, task)
    assert work.messages[0].content.endswith(answer_prompt("Who?", ("search",)).system)
    assert work.tools == ("search",)


def test_steps_ask_as_a_search_over_steps_asks() -> None:
    system, user = asked({"style": "steps"}).messages
    assert (system.content, user.content) == step_prompt("2+2?")
    search = {"scorer": "prm"}
    beam = simulate(load_strategy("beam", search), TASK, lambda _: Reply("<answer>4</answer>", score=1.0))
    assert beam.graph.threads()[0].work.messages == (system, user)


@pytest.mark.parametrize("name", ["chain_of_thought", "vote", "best_of_n"])
def test_steps_call_no_tools_and_a_task_with_tools_is_refused(name: str) -> None:
    params = {"over_params": {"style": "steps"}} if name == "vote" else {"style": "steps"}
    with pytest.raises(UserError, match="no tools"):
        check_calls(name, load_strategy(name, params), Task(question="Who?", tools=("search",)))
    check_calls(name, load_strategy(name, {}), Task(question="Who?", tools=("search",)))


def test_the_styles_are_those_of_all_that_sample_chains() -> None:
    style = {"style": "few_shot", "examples": EXAMPLES}
    messages = asked(style).messages
    assert asked({"n": 1, "over_params": style}, strategy="vote").messages == messages
    assert asked({"n": 1, "scorer": "orm", **style}, strategy="best_of_n").messages == messages


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"style": "few_shot"}, "needs examples"),
        ({"examples": EXAMPLES}, "would not be shown with style=zero_shot"),
        ({"style": "few_shot", "examples": [{"question": "1+1?"}]}, "examples.0.answer"),
        ({"style": "five_shot"}, "parameter 'style'"),
    ],
)
def test_what_would_not_be_asked_is_refused(params: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_strategy("chain_of_thought", params)
