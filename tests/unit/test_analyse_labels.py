"""Units of thought and their labels: against sentences labelled by hand, and against odd input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from researcher.train.analyse.label import Agreement, agreement, counts, labelled, labels
from researcher.train.analyse.table import PATTERNS, RUBRIC, Behaviour, Pattern
from researcher.train.analyse.thoughts import thinking
from researcher.train.analyse.units import units
from researcher.types import Message

E, B, V, S, G = Behaviour
FIXTURE = Path(__file__).parent / "data" / "labelled_thoughts.jsonl"
PRECISION, RECALL = 0.9, 0.9
"""The bars of each behaviour. The sentences were seen while the patterns were written: what unseen ones of other models
give is lower, and stands in the design note."""


class Known(NamedTuple):
    """A unit that a person labelled by the rubric; `origin`: an output of the embedded model, or written for this."""

    text: str
    labels: frozenset[Behaviour]
    origin: str


def known() -> list[Known]:
    rows = map(json.loads, FIXTURE.read_text("utf-8").splitlines())
    return [Known(row["text"], frozenset(map(Behaviour, row["labels"])), row["origin"]) for row in rows]


def test_the_fixture_is_large_enough_half_of_it_real_and_every_behaviour_is_in_it() -> None:
    found = known()
    assert len(found) >= 60
    assert sum(each.origin == "embedded" for each in found) >= len(found) / 2
    assert min(counts(each.labels for each in found).values()) >= 10
    assert sum(not each.labels for each in found) >= 25  # many show nothing: a label everywhere would be found out


@pytest.mark.parametrize("origin", ["embedded", "written"])
def test_the_patterns_agree_with_a_person(origin: str) -> None:
    chosen = [each for each in known() if each.origin == origin]
    for each in agreement([k.labels for k in chosen], [labels(k.text) for k in chosen]):
        assert each.precision is not None
        assert each.precision >= PRECISION, each
        assert each.recall is not None
        assert each.recall >= RECALL, each


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: str(pattern.example)[:30])
def test_each_pattern_finds_its_example_itself(pattern: Pattern) -> None:
    assert pattern.wording.search(pattern.example)
    assert pattern.behaviour in labels(pattern.example)
    assert pattern.behaviour in RUBRIC


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Maybe I miscalculated?", {V}),  # doubt, and not yet turning back
        ("I miscalculated.", {B}),
        ("So this doesn't work.", {B}),  # that a way fails is no conclusion besides
        ("So what if it is odd?", {E}),
        ("Let’s double‐check it: does it work?", {V}),
        ("```\n# let me verify this\n```", set()),
        ("", set()),
    ],
)
def test_what_looks_alike_is_told_apart(text: str, shown: set[Behaviour]) -> None:
    assert labels(text) == shown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three? four"]),
        ("It is 3.5 m, i.e. short. Dr. No agrees.", ["It is 3.5 m, i.e. short.", "Dr. No agrees."]),
        ("The founder is Gofo. [58]\n\nSo Gofo.", ["The founder is Gofo. [58]", "So Gofo."]),
        ("57: 57-55=2 | 10+5=15 no\ncheck 10/5=2 57-2=55", ["57: 57-55=2 | 10+5=15 no", "check 10/5=2 57-2=55"]),
        ("# Plan\n- First.\n2. Second. Third.", ["Plan", "First.", "Second.", "Third."]),
        ("Code:\n```py\nx = 1. Then\n\ny\n```\nDone.", ["Code:", "```\nx = 1. Then\n\ny\n```", "Done."]),
        ("```\nnever closed", ["```\nnever closed"]),
        ("对。错。", ["对。", "错。"]),
        (" \n\t\n", []),
    ],
)
def test_units(text: str, found: list[str]) -> None:
    assert units(text) == found


@pytest.mark.parametrize(
    "piece", ["10/", "1 ", "so ", "- ", "no, ", "let me ", "(", "\u00a0", "a=", "if ", "?! ", "-1/2"]
)
def test_endless_repetition_is_labelled_in_no_time(piece: str) -> None:
    found = labelled(piece * 20_000)  # a pattern that goes back over what it read would not end here
    assert len(found.units) == len(found.labels)


def test_second_looks_are_counted_by_the_word() -> None:
    assert labelled("Wait, wait. Hmm, actually that is right. Waiter!").second_looks == 4


def test_agreement_by_hand() -> None:
    right = [frozenset({E}), frozenset({E}), frozenset({B}), frozenset()]
    found = [frozenset({E}), frozenset(), frozenset({B, E}), frozenset()]
    by_name = {each.behaviour: each for each in agreement(right, found)}
    explored = by_name[E]
    assert explored == Agreement(E, units=4, wanted=2, found=2, both=1)
    assert (explored.precision, explored.recall) == (0.5, 0.5)
    assert explored.kappa == pytest.approx(0.0)  # agreed on 2 of 4, which chance does: 0.5 * 0.5 + 0.5 * 0.5
    assert by_name[B].kappa == pytest.approx(1.0)
    assert (by_name[V].precision, by_name[V].recall, by_name[V].kappa) == (None, None, None)


def say(content: str, reasoning: str = "") -> Message:
    return Message(role="assistant", content=content, reasoning=reasoning)


@pytest.mark.parametrize(
    ("replies", "thought"),
    [
        ([say("<answer>4</answer>", "So 4.")], "So 4."),
        ([say("call", "First."), say("<answer>4</answer>"), say("", "Then.")], "First.\nThen."),
        ([say("<think>So 4.</think>Four. <answer>4</answer>")], "So 4."),
        ([say("So 4.</think>Four.")], "So 4."),  # the template wrote the opening
        ([say("<think>It goes on")], "It goes on"),
        ([say('It is 4.\n[1] "4 it is."\n<answer>4</answer>')], "It is 4."),
        ([say("<answer>4")], ""),
    ],
)
def test_what_of_a_reply_is_thinking(replies: list[Message], thought: str) -> None:
    assert thinking(replies) == thought


def test_steps_are_pieces_of_one_turn() -> None:
    assert thinking([say("51-39=12 le"), say("ft 12 63\n")], steps=True) == "51-39=12 left 12 63"
