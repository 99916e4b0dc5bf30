"""Number puzzles: every label agrees with a plain search over fractions, and every trace with the rules."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from functools import cache
from itertools import permutations

import pytest

from researcher.strategies.prompts import parse_choice, parse_lines, parse_value
from researcher.train.embedded import data
from researcher.train.embedded.evaluate import is_right, proposes, stated
from researcher.train.embedded.tasks import countdown, puzzles, steps
from researcher.train.embedded.tasks.example import Example, Skill

STEP = re.compile(r"(\(?[\d/]+\)?)([-+*/])(\(?[\d/]+\)?)=([\d/]+) left ([\d/ ]+)")


def number(text: str) -> Fraction:
    return Fraction(text.strip("()"))


@cache
def makes(numbers: tuple[Fraction, ...], target: int) -> bool:
    """Whether any order of any operations gives the target: the oracle, written another way than the task."""
    if len(numbers) == 1:
        return numbers[0] == target
    for a, b, *rest in permutations(numbers):
        made = [a + b, a - b, a * b, *([a / b] if b else [])]
        if any(makes(tuple(sorted([value, *rest])), target) for value in made):
            return True
    return False


def follow(example: Example, lines: list[str]) -> tuple[Fraction, ...] | None:
    """The numbers after these steps, or None where one is false."""
    left = sorted(Fraction(n) for n in stated(example)[0])
    for line in lines:
        if line.startswith("<answer>"):
            continue
        match = STEP.fullmatch(line)
        assert match, line
        a, b, made = number(match[1]), number(match[3]), number(match[4])
        if a not in left or (a == b and left.count(a) < 2) or b not in left:
            return None
        left.remove(a)
        left.remove(b)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[match[2]]
        left = sorted([*left, made])
        if value != made or left != [Fraction(n) for n in match[5].split()]:
            return None
    return tuple(left)


def examples(skill: Skill, count: int = 20) -> list[Example]:
    return [data.make(random.Random(f"{skill}/{i}"), skill, held_out=bool(i % 2)) for i in range(count)]


@pytest.mark.parametrize("skill", ["step_3", "step_4", "step_24"])
def test_the_policy_writes_true_steps_to_the_target_and_then_their_expression(skill: Skill) -> None:
    for example in examples(skill):
        *lines, last = example.messages[2]["content"].splitlines()
        assert follow(example, lines) == (Fraction(stated(example)[1]),)
        assert last == f"<answer>{example.answer}</answer>"
        assert is_right(example, example.answer)


def test_the_policy_draws_different_solutions_of_one_puzzle() -> None:
    puzzle = puzzles.Puzzle((2, 3, 4, 6), 24)
    drawn = {puzzles.solve(random.Random(i), puzzle.state, 24) for i in range(40)}
    assert len(drawn) > 10


@pytest.mark.parametrize("skill", ["process", "value"])
def test_steps_are_judged_by_what_they_can_still_reach(skill: Skill) -> None:
    found = examples(skill)
    for example in found:
        *_, target = stated(example)
        lines = example.messages[1]["content"].splitlines()[2:]
        left = follow(example, lines)
        live = left is not None and makes(left, target)
        if skill == "process":
            assert example.answer == ("+" if live else "-")
        else:
            sure = left is not None and len(left) <= 2
            assert parse_value(example.answer) == ("impossible" if not live else "sure" if sure else "likely")
    shares = [sum(e.answer == answer for e in found) / len(found) for answer in {e.answer for e in found}]
    assert min(shares) > 0.15


def test_solutions_are_judged_by_the_rule_of_the_puzzle() -> None:
    found = examples("outcome", 60)
    for example in found:
        solution = example.messages[1]["content"].splitlines()[-1]
        answer = re.sub(r"</?answer>", "", solution)
        assert (countdown.value_of(answer, stated(example)[0]) == stated(example)[1]) == (example.answer == "+")
    assert 15 < sum(example.answer == "+" for example in found) < 45


def test_proposals_are_legal_and_begin_with_what_leads_on() -> None:
    for example in examples("propose"):
        lines = parse_lines(example.answer)
        assert 1 <= len(lines) <= steps.PROPOSALS
        assert proposes(example, example.answer)
        assert not proposes(example, f"{example.answer}\n1+1=3 left 3")


def test_the_chosen_candidate_is_the_only_live_one() -> None:
    for example in examples("choose"):
        parts = re.split(r"^Candidate \d+:\n", example.messages[1]["content"], flags=re.MULTILINE)[1:]
        chosen = parse_choice(example.answer, of=len(parts))
        assert chosen is not None
        for i, part in enumerate(parts):
            *lines, last = part.strip().splitlines()
            if " left " not in last:
                answer = re.sub(r"</?answer>", "", last)
                live = countdown.value_of(answer, stated(example)[0]) == stated(example)[1]
            else:
                left = follow(example, [*lines, last])
                live = left is not None and makes(left, stated(example)[1])
            assert live == (i == chosen)


@pytest.mark.parametrize("skill", ["revise", "aggregate"])
def test_attempts_are_worked_out_until_one_is_right(skill: Skill) -> None:
    kept = 0
    for example in examples(skill):
        content = example.messages[2]["content"]
        checks = [line for line in content.splitlines() if line.endswith((" yes", " no"))]
        assert checks
        assert all(line.endswith(" no") for line in checks[:-1])
        assert is_right(example, example.answer)
        kept += checks[-1].endswith(" yes")
        if checks[-1].endswith(" no"):
            rest = content.splitlines()[len(checks) : -1]
            assert follow(example, rest) == (Fraction(stated(example)[1]),)
    assert 2 < kept < 18


def test_reachability_is_that_of_the_plain_search() -> None:
    rng = random.Random(1)
    for _ in range(60):
        state = tuple(sorted(rng.randrange(1, 14) for _ in range(rng.randrange(1, 4))))
        target = rng.randrange(1, 40)
        assert puzzles.reachable(state, target) == makes(tuple(map(Fraction, state)), target)
    assert puzzles.reachable((3, 3, 8, 8), 24)
    assert not puzzles.reachable((1, 1, 1, 1), 24)


def test_a_puzzle_that_needs_fractions_is_solved_with_them() -> None:
    path = puzzles.solve(random.Random(0), (3, 3, 8, 8), 24)
    assert path is not None
    assert countdown.value_of(puzzles.expression((3, 3, 8, 8), path), (8, 3, 8, 3)) == 24
    assert puzzles.lines((3, 3, 8, 8), path)[0] == "8/3=8/3 left 8/3 3 8"


def test_half_of_the_game_of_24_is_held_out_whatever_the_order() -> None:
    trained, kept = puzzles.game_of_24(held_out=False), puzzles.game_of_24(held_out=True)
    assert len(trained) + len(kept) == 1362
    assert abs(len(trained) - len(kept)) < 100
    for hand in trained[:50]:
        assert not countdown.is_held_out(tuple(reversed(hand)), 24)
    drawn = [puzzles.draw(random.Random(i), "24") for i in range(50)]
    assert not any(countdown.is_held_out(puzzle.numbers, 24) for puzzle in drawn)
