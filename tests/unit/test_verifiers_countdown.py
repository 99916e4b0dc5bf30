from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from researcher_tools.verifiers import get_verifier, verifier_names
from researcher_tools.verifiers.countdown import MAX_LENGTH, check_countdown, solve_countdown

from researcher.errors import UserError
from researcher.testing.verifier_conformance import check_verifier
from researcher.types import Task, VerdictStatus

PUBLIC_HOLES = [
    ("factorial(4)*1*1**6", [4, 1, 1, 6], 24),  # Game of 24 through sympy
    ("1.5*4*4", [1, 5, 4, 4], 24),  # a character whitelist and eval
    ("5**2", [5, 2], 25),  # the same
    ("(3+7)*0e0+24e0", [3, 7, 0, 0, 24, 0], 24),  # isclose
    ("6*4*1*1", [8, 8, 3, 3], 24),  # inputs unchecked
]

ATTACKS = [
    "", " ", "()", "24", "-24", "+24", "24.0", "24e0", "2_4", "0x18", "0b11000", "0o30", "024", "24j", "'24'", "b'24'",
    "True*24", "None", "...", "[24]", "{24}", "24,", "(24,)", "24;", "24#", "24\n", "\n24", "24 if 1 else 0", "24 or 0",
    "not 0", "~-25", "3<<3", "25^1", "27//1-3", "124%100", "4**2+8", "4@6", "max(24,1)", "int('24')", "abs(-24)",
    "__import__('os')", "(lambda:24)()", "x:=24", "24 == 24", "1 < 24", "sum([4,6])", "f'{24}'", "4!", "4!*1",
    "√576", "²⁴", "２４", "٢٤", "4×6", "4·6", "4 6", "4(6)", "(4)(6)", "4 * 6 = 24", "$24$", "\\boxed{24}",
    "<answer>24", "3*8+0*(1)", "3*8*1", "8*3", "3*8/1", "(3*8", "3*8)", "3*8+", "*3*8", "3*8--", "--3*8*--1*+1",
    "8/(3-8/3)+3-3", "(8/(3-8/3))*(3/3)", "8/0+3+3+8", "8/(3-3)*8", "1/(8-8)+3*3", "8+8+3+3", "38-8-3", "83-8*3",
    "8-3-3*-8", "inf", "nan", "1e308*10", "9" * 199, "9" * 100_000, "(" * 100, "-" * 199 + "1", "-" * 100_000 + "1",
    "8*3" + "+0" * 98, "8*3" + "-(8-8)" * 90, "\0", "\ud800", "8*3\u200b", "8\u22123", "8 *\t3",
]  # fmt: skip
"""None of these makes 24 from 8, 8, 3 and 3, each used once."""


@pytest.mark.parametrize(("expression", "numbers", "target"), PUBLIC_HOLES)
def test_the_holes_of_public_verifiers_are_closed(expression: str, numbers: list[int], target: int) -> None:
    assert not check_countdown(expression, numbers, target).ok


@pytest.mark.parametrize("expression", ATTACKS, ids=lambda x: ascii(x)[:30])
def test_the_attack_is_refused_with_a_reason(expression: str) -> None:
    check = check_countdown(expression, [8, 8, 3, 3], 24)
    assert not check.ok
    assert check.reason


@pytest.mark.parametrize(
    ("expression", "numbers", "target"),
    [
        ("8/(3-8/3)", [8, 3, 8, 3], 24),
        (" (1 + 2) * 8 ", [8, 2, 1], 24),
        ("-(3-27)", [27, 3], 24),
        ("--24", [24], 24),
        ("3*8", [3, 8], 24),
        ("0*5+24", [24, 5, 0], 24),
        ("(-3)*(-8)", [-3, 8], 24),
        ("1-25", [25, 1], -24),
    ],
)
def test_a_solution_is_a_solution_in_any_spelling(expression: str, numbers: list[int], target: int) -> None:
    assert check_countdown(expression, numbers, target) == (True, "")


def test_the_length_is_capped() -> None:
    within = "(" * ((MAX_LENGTH - 2) // 2) + "24" + ")" * ((MAX_LENGTH - 2) // 2)
    assert check_countdown(within, [24], 24).ok
    assert check_countdown(f"({within})", [24], 24).reason == f"longer than {MAX_LENGTH} characters"


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.data())
def test_what_the_solver_finds_the_rule_accepts(numbers: list[int], data: st.DataObject) -> None:
    """The target is reached by construction, so a solution exists; and one number less is never a solution."""
    value = numbers[0]
    for number in numbers[1:]:
        value = data.draw(st.sampled_from([value + number, value - number, value * number]))
    solution = solve_countdown(numbers, value)
    assert solution is not None
    assert check_countdown(solution, numbers, value).ok
    assert not check_countdown(solution, [*numbers, 1], value).ok
    assert not check_countdown(solution, numbers[1:], value).ok
    assert not check_countdown(solution, numbers, value + 1).ok


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    assert check_countdown(text, [8, 8, 3, 3], 24).ok is False


def test_the_solver_knows_the_game_of_24() -> None:
    assert check_countdown(solve_countdown([3, 3, 8, 8], 24) or "", [3, 3, 8, 8], 24).ok  # only through a fraction
    assert solve_countdown([1, 1, 1, 1], 24) is None


@pytest.mark.slow
def test_as_many_games_of_24_can_be_solved_as_there_are() -> None:
    hands = list(combinations_with_replacement(range(1, 11), 4))
    assert len(hands) == 715
    assert sum(solve_countdown(hand, 24) is not None for hand in hands) == 566


@pytest.mark.anyio
async def test_the_verifiers_keep_every_rule() -> None:
    task = Task(question="Make 24.", data={"numbers": [8, 8, 3, 3], "target": 24})
    await check_verifier(get_verifier("countdown"), task, right="8/(3-8/3)", wrong="8+8+3+3")
    bare = Task(question="Make 24.", data={"numbers": [8, 8, 3, 3]})
    await check_verifier(get_verifier("game24"), bare, right="8/(3-8/3)", wrong="8*3")
    assert (await get_verifier("countdown").verify(bare, "8*3")).status is VerdictStatus.UNVERIFIED


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "right"),
    [("8 ÷ (3 − 8 ÷ 3) = 24", True), ("8/(3-8/3) = 25", False), ("24 = 8/(3-8/3)", False), ("3×8=24", False)],
)
async def test_written_signs_and_the_closing_target_are_understood(answer: str, right: bool) -> None:
    task = Task(question="Make 24.", data={"numbers": [8, 8, 3, 3], "target": 24})
    verdict = await get_verifier("countdown").verify(task, answer)
    assert (verdict.status is VerdictStatus.CORRECT) == right


@pytest.mark.anyio
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"numbers": []},
        {"numbers": "8833", "target": 24},
        {"numbers": [8.0], "target": 8},
        {"numbers": [True], "target": 1},
    ],
)
async def test_a_task_without_numbers_cannot_be_checked(data: dict[str, object]) -> None:
    verdict = await get_verifier("countdown").verify(Task(question="q", data=data), "8")
    assert verdict.status is VerdictStatus.UNVERIFIED


def test_an_unknown_verifier_offers_the_nearest() -> None:
    assert {"countdown", "exact", "game24", "numeric"} <= set(verifier_names())
    with pytest.raises(UserError, match=r"There is no verifier 'count_down'; did you mean countdown\?"):
        get_verifier("count_down")
