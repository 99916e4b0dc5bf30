"""The parsers read what the prompts ask for, and survive what models write instead."""

import pytest

from researcher.strategies import prompts
from researcher.strategies.prompts import Finding, Quote


def test_a_final_message_gives_its_answer_and_its_quotes() -> None:
    text = '[17] "Bena Kirov was born in Toral."\n[3] "Toral lies in Vesland."\n<answer>Vesland</answer>'
    assert prompts.parse_answer(text) == "Vesland"
    assert prompts.parse_quotes(text) == [(17, "Bena Kirov was born in Toral."), (3, "Toral lies in Vesland.")]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>a</answer> no: <answer> b </answer>", "b"),
        ("<answer>open <answer>b</answer>", "b"),
        ("so \\boxed{\\frac{1}{2}} and done", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{never closed", None),
        ("<answer></answer>", None),
        ("no answer here", None),
        ("<answer>cut off", None),
        ("<answer>two\nlines</answer>", "two\nlines"),
    ],
)
def test_the_last_answer_wins(text: str, answer: str | None) -> None:
    assert prompts.parse_answer(text) == answer


def test_a_quote_may_contain_quotes_and_its_line_must_be_whole() -> None:
    assert prompts.parse_quotes('[2] "He said "no" twice."') == [Quote(2, 'He said "no" twice.')]
    assert prompts.parse_quotes('see [2] "x" there') == []


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("1. Where was A born?\n2. Who founded B?", ["Where was A born?", "Who founded B?"]),
        ("Sure!\n\n1) First?\n2) Second?\n", ["First?", "Second?"]),
        ("- a?\n- b?\n- a?", ["a?", "b?"]),
        ("Where was A born?", ["Where was A born?"]),
        ("two lines\nwithout numbers", []),
        ("", []),
    ],
)
def test_subquestions_are_numbered_lines(text: str, questions: list[str]) -> None:
    assert prompts.parse_subquestions(text) == questions


@pytest.mark.parametrize(
    ("text", "verdict"), [("+", "+"), (" -\n", "-"), ("\u2212", "-"), ("**+**", "+"), ("yes", None), ("", None)]
)
def test_a_verdict_is_the_sign_at_the_start(text: str, verdict: str | None) -> None:
    assert prompts.parse_verdict(text) == verdict


def test_prompts_depend_on_the_tools_and_carry_the_question() -> None:
    by_tools = [prompts.answer_prompt("Q?", tools) for tools in (("search", "read"), ("python",), ())]
    assert len({prompt.system for prompt in by_tools}) == 3
    assert all(prompt.user == "Q?" and "<answer>" in prompt.system for prompt in by_tools)


def test_findings_are_numbered_from_one_with_their_quotes() -> None:
    findings = [Finding("How high is A?", "4120 m", ("A is 4120 m high.",)), Finding("How high is B?", "unknown")]
    user = prompts.synthesis_prompt("Which is higher, A or B?", findings).user
    assert user.splitlines()[2:] == [
        '[1] How high is A? -> 4120 m: "A is 4120 m high."',
        "[2] How high is B? -> unknown",
    ]


def test_the_judge_sees_question_answer_and_evidence() -> None:
    user = prompts.judge_prompt("Q?", "A", [Quote(3, "A is so.")]).user
    assert user == 'Question: Q?\nAnswer: A\nEvidence:\n[3] "A is so."'
