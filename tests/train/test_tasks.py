"""The generated tasks: the same for a seed, right by an independent check, and clean of held-out names."""

from __future__ import annotations

import json
import random
import re
from itertools import islice
from typing import Literal

import pytest
from researcher_tools.corpus import Corpus, render

from researcher.strategies.prompts import parse_answer, parse_quotes, parse_subquestions, parse_verdict
from researcher.train.embedded import data
from researcher.train.embedded.tasks import arithmetic, countdown, names
from researcher.train.embedded.tasks.documents import Style
from researcher.train.embedded.tasks.example import Example
from researcher.train.embedded.tasks.kinds import Contest
from researcher.train.embedded.tasks.worlds import World

SKILLS = data.SKILLS
VERDICTS = ("judging", "process", "outcome", "value", "choose", "propose")
NAME = re.compile(r"\b(?:[BDFGHJKLMNPRSTVZ][aeiou])(?:[bdfghjklmnprstvz][aeiou]){1,2}[nrlstkm]?\b")

FIXED = {"River"}
"""Words of the templates that look like invented ones."""


def invented(world: World) -> set[str]:
    """The invented words among the names of a world."""
    return {word for name in world.kinds for word in NAME.findall(name)} - FIXED


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(islice(data.training(seed=3, shard=0, stage=1.0), 400))


def test_a_seed_names_every_example(examples: list[Example]) -> None:
    assert list(islice(data.training(3, 0, 1.0), 50)) == examples[:50]
    assert list(islice(data.training(3, 1, 1.0), 50)) != examples[:50]
    assert list(islice(data.training(4, 0, 1.0), 50)) != examples[:50]


@pytest.mark.parametrize("skill", SKILLS)
def test_evaluation_problems_are_fixed_and_of_their_skill(skill: data.Skill) -> None:
    first = data.held_out(skill, 3)
    assert first == data.held_out(skill, 3)
    assert [example.skill for example in first] == [skill] * 3


def test_the_mix_has_every_skill(examples: list[Example]) -> None:
    assert {example.skill for example in examples} == set(data.MIX)
    assert sum(data.MIX.values()) == pytest.approx(1.0)


def test_every_trace_ends_in_its_right_answer(examples: list[Example]) -> None:
    for example in examples:
        content = example.messages[-1]["content"]
        if example.skill == "lookup":
            assert f"So {example.answer}." in example.messages[-1]["reasoning_content"]
        elif example.skill in VERDICTS:
            assert example.answer == content
            if example.skill in ("value", "choose", "propose"):
                continue
            assert parse_verdict(content) == content == example.answer
        elif example.skill == "splitting":
            assert [f"{i}. {q}" for i, q in enumerate(parse_subquestions(content), 1)] == example.answer.splitlines()
        else:
            assert parse_answer(content) == example.answer


def test_every_quote_is_verbatim_in_its_passage_and_every_tool_result_is_the_tools(examples: list[Example]) -> None:
    seen = 0
    for example in examples:
        if example.skill not in data.DOCUMENT_SKILLS:
            continue
        corpus = Corpus.from_texts(example.texts)
        for quote in parse_quotes(example.messages[-1]["content"]):
            passage = corpus.passage(quote.n)
            assert passage is not None
            assert quote.text in passage.text
            seen += 1
        for said, got in zip(example.messages, example.messages[1:], strict=False):
            for call in said.get("tool_calls", ()):
                arguments = json.loads(call["function"]["arguments"])
                if "query" in arguments:  # training also shuffles the hits and takes three or five
                    hits = {render([hit]) for hit in corpus.search(arguments["query"], 5)}
                    assert set(got["content"].splitlines()) <= hits | {render([])}
                else:
                    assert got["content"] == render(corpus.read(arguments["source"]))
        corpus.close()
    assert seen > 100


def test_the_last_quote_carries_the_answer() -> None:
    for skill in ("one_hop", "two_hops", "three_hops"):
        for example in data.held_out(skill, 20):
            quotes = parse_quotes(example.messages[-1]["content"])
            assert example.answer.split()[0] in quotes[-1].text
            assert len(quotes) == {"one_hop": 1, "two_hops": 2, "three_hops": 3}[skill]


def test_comparisons_are_decided_by_the_quoted_numbers() -> None:
    more = ("higher", "longer", "taller", "larger", "more", "later", "younger")
    for example in data.held_out("comparison", 40):
        question = example.messages[1]["content"]
        quotes = parse_quotes(example.messages[-1]["content"])
        a, b = (max(int(n) for n in re.findall(r"\d+", quote.text)) for quote in quotes)
        wants_more = any(word in question for word in more)
        winner = quotes[0] if (a > b) == wants_more else quotes[1]
        assert example.answer in winner.text
        assert example.answer in question


@pytest.mark.parametrize(
    ("pick", "first", "second", "said"),
    [
        ("more", 8850, 8345, "8850 A (4), 8345 B (4): 8=8 8>3; larger 8850 A, smaller 8345 B; larger: 8850 A."),
        ("more", 5406, 14055, "5406 A (4), 14055 B (5): 4<5 digits; larger 14055 B, smaller 5406 A; larger: 14055 B."),
        ("less", 388, 1271, "388 A (3), 1271 B (4): 3<4 digits; larger 1271 B, smaller 388 A; smaller: 388 A."),
        ("less", 71, 70, "71 A (2), 70 B (2): 7=7 1>0; larger 71 A, smaller 70 B; smaller: 70 B."),
    ],
)
def test_a_comparison_says_how_long_its_numbers_are(
    pick: Literal["more", "less"], first: int, second: int, said: str
) -> None:
    question = f"Which is {'larger' if pick == 'more' else 'smaller'}, {{a}} or {{b}}?"
    assert Contest(question, pick).decide((first, "A"), (second, "B")) == said


def test_training_compares_numbers_of_different_lengths_more_often_than_they_come() -> None:
    shares = {skill: float(skill == "comparison") for skill in data.DOCUMENT_SKILLS}
    said = [str(example.messages[-1]) for example in islice(data.training(0, 0, 1.0, shares), 200)]
    assert 0.3 < sum(" digits;" in text for text in said) / len(said) < 0.8


def test_countdown_answers_follow_the_rule() -> None:
    for skill, count in (("countdown_3", 3), ("countdown_4", 4)):
        for i in range(40):
            example = data.make(random.Random(i), skill)
            numbers = [int(n) for n in re.findall(r"\d+", example.messages[1]["content"])]
            target = numbers.pop(0 if example.messages[1]["content"].startswith("Make") else -1)
            assert len(numbers) == count
            assert countdown.value_of(example.answer, numbers) == target
            think = example.messages[-1]["reasoning_content"]
            for left, op, right, made in re.findall(r"(\d+)([-+*/])(\d+)=(\d+)", think):
                assert countdown.value_of(f"{left}{op}{right}", [int(left), int(right)]) == int(made)


@pytest.mark.parametrize("expression", ["8 * 8", "2 ** 6", "64", "8 * 8.0", "(8 * 8", "8 * 8 + 0", "abs(8) * 8", ""])
def test_the_rule_of_countdown_has_no_such_hole(expression: str) -> None:
    assert countdown.value_of(expression, [2, 4, 8]) is None


def test_arithmetic_is_right_and_its_hold_out_separate() -> None:
    for i in range(50):
        for side in (True, False):
            text, value = arithmetic.expression(random.Random(i), held_out=side)
            numbers = [int(n) for n in re.findall(r"\d+", text)]
            assert countdown.value_of(text, numbers) == value
            assert arithmetic.is_held_out(text) == side


def test_no_held_out_name_is_in_training_and_only_they_are_in_evaluation() -> None:
    for i in range(40):
        trained = invented(World.make(random.Random(i), 30))
        kept = invented(World.make(random.Random(i), 30, held_out=True))
        assert trained
        assert kept
        assert not any(names.is_held_out(word) for word in trained)
        assert all(names.is_held_out(word) for word in kept)


def test_no_held_out_name_is_in_any_training_text(examples: list[Example]) -> None:
    words = {word for example in examples for message in example.messages for word in NAME.findall(message["content"])}
    assert len(words) > 250
    assert not {word for word in words if names.is_held_out(word)} - FIXED


def test_no_held_out_countdown_problem_is_in_training(examples: list[Example]) -> None:
    for example in examples:
        if example.skill.startswith("countdown") or example.skill in data.PUZZLE_SKILLS:
            question = example.messages[1]["content"].splitlines()[0].removeprefix("Question: ")
            numbers = [int(n) for n in re.findall(r"\d+", question)]
            target = numbers.pop(0 if question.startswith("Make") else -1)
            assert not countdown.is_held_out(numbers, target)


def test_a_question_that_the_documents_do_not_answer_is_unknown() -> None:
    for example in data.held_out("unanswerable", 20):
        assert example.answer == "unknown"
        assert parse_answer(example.messages[-1]["content"]) == "unknown"
        assert sum("tool_calls" in message for message in example.messages) >= 2


def test_a_solver_says_nothing_where_the_tool_finds_nothing() -> None:
    world = World.make(random.Random(1), 12)
    corpus = Corpus.from_texts({"empty.md": "Nothing of interest."})
    solved = [data.solve(random.Random(i), world, corpus, "one_hop", Style()) for i in range(5)]
    corpus.close()
    assert solved == [None] * 5
