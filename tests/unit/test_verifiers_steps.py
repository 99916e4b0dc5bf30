from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from researcher_tools.verifiers import get_verifier
from researcher_tools.verifiers.countdown import solve_countdown
from researcher_tools.verifiers.puzzle_steps import Puzzle as P
from researcher_tools.verifiers.puzzle_steps import Step, apply, parse_step, state_key, walk
from researcher_tools.verifiers.reachable import MOST, Reachable, reachable

from researcher.errors import UserError
from researcher.protocols import StateKey, StepVerifier
from researcher.testing.verifier_conformance import check_states, check_steps, check_verifier
from researcher.types import Task, VerdictStatus

TASK = Task(question="Make 47.", verifier="countdown", data={"numbers": [5, 7, 12, 64], "target": 47})
GAME = Task(question="Make 24.", verifier="game24", data={"numbers": [4, 4, 6, 8]})


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("64-5=59 left 7 12 59", Step(64, "-", 5, 59, (7, 12, 59))),
        ("6 - 4 = 2 (left: 2 8 8)", Step(6, "-", 4, 2, (2, 8, 8))),
        ("6 × 4 = 24 (left: 24)", Step(6, "*", 4, 24, (24,))),
        ("3. 8/3=8/3, left: 3, 8/3.", Step(8, "/", 3, Fraction(8, 3), (Fraction(8, 3), 3))),
        ("8/(8/3)=3", Step(8, "/", Fraction(8, 3), 3, None)),
        ("(8/3) * 3 = 8", Step(Fraction(8, 3), "*", 3, 8, None)),
        ("1/2*4=2 left 2", Step(Fraction(1, 2), "*", 4, 2, (2,))),
        ("Step 2: 4-9=-5 left -5 7", Step(4, "-", 9, -5, (-5, 7))),
        ("- 4-(-5)=9", Step(4, "-", -5, 9, None)),
        ("0.5*4=2", Step(Fraction(1, 2), "*", 4, 2, None)),
        ("  2+2=4\t", Step(2, "+", 2, 4, None)),
    ],
)
def test_a_step_is_read_in_any_of_its_spellings(line: str, step: Step) -> None:
    assert parse_step(line) == step


@pytest.mark.parametrize(
    "line",
    [
        "", "64-5", "64-5-7=52", "=5", "5=5", "64-5=59=60", "64-5=59 left 7 12 59 x", "64-5=59 and more", "1/0+3=4",
        "6^2=36", "2**3=8", "sqrt(4)*2=4", "a+b=c", "6-4=2 (left: 2 8 8) 6-4=2", "٦-4=2", "６-4=2", "1e1-4=6",
        "0x6-4=2",
        "1" * 31 + "+1=2", "1+1=2 left " + "1" * 380 + "x", "1+1=2" + " " * 394 + "x", "1+1=2 (" + " ," * 190 + "x",
        "1" * 5_000 + "+1=2", "(" * 390 + "1+1=2",
    ],
)  # fmt: skip
def test_what_is_no_step_is_none_and_costs_nothing(line: str) -> None:
    assert parse_step(line) is None


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], "5 7 12 64"),
        (["64-5=59 left 7 12 59\n"], "7 12 59"),
        (["64-5=59\n", "59-12=47\n"], "7 47"),
        (["64-5=59\n59-12=47\n"], "7 47"),
        (["64-5=59", "59-12=47"], "7 47"),
        (["First I look.\n", "64-5=59\n"], "7 12 59"),
        (["5/7=5/7\n"], "5/7 12 64"),
        (["5-7=-2\n"], "-2 12 64"),
        (["64-5=58 left 7 12 58\n"], None),  # false
        (["64-5=59 left 7 12 60\n"], None),  # what is left is not
        (["64-5=59 left 12 59\n"], None),
        (["64-4=60\n"], None),  # no 4
        (["5+5=10\n"], None),  # one 5 alone
        (["64-5=59\n", "64-7=57\n"], None),  # 64 is used up
        (["5-5=0\n"], None),
        (["64*0=0\n"], None),
        (["12/0=0\n"], None),
        (["12-12=0\n"], None),
        (["5/7=0.714\n"], None),  # rounded
        (["64 - 5 - 7 = 52\n"], None),
        (["64-5=59\n", "<answer>1</answer>"], None),  # an end
        (["Answer: 64-5"], None),
        (["x" * 20_001], None),
    ],
)
def test_the_state_is_what_is_really_left(steps: list[str], state: str | None) -> None:
    assert state_key(P((5, 7, 12, 64), 47), steps) == state


def test_a_division_by_zero_is_no_step() -> None:
    assert walk([4, 4, 6, 8], ["4-4=0\n", "6/0=6\n"]).reason == "it divides by zero"


@pytest.mark.parametrize("name", ["countdown", "game24", "reachable"])
def test_the_states_keep_every_rule(name: str) -> None:
    check_states(
        get_verifier(name),
        Task(question="q", verifier="game24", data={"numbers": [4, 4, 6, 8], "target": 24}),
        same=[
            [[], ["I begin.\n"]],
            [["4+4=8 left 6 8 8\n"], ["4 + 4 = 8 (left: 8 6 8)\n"], ["1. 4+4=8"]],
            [["8-4=4\n"], ["8-4=4 left 4 4 6\n"]],
            [["4+4=8\n", "6*8=48\n"], ["6*8=48\n", "4+4=8\n"]],
        ],
        illegal=[["4+4=9\n"], ["4+5=9\n"], ["4+4=8 left 8 8\n"], ["<answer>24</answer>"], ["4*4*6=96\n"]],
    )


@pytest.mark.anyio
async def test_reachable_keeps_every_rule() -> None:
    verifier = get_verifier("reachable")
    task = Task(question="q", data={"numbers": [8, 8, 3, 3], "target": 24})
    await check_verifier(verifier, task, right="8/(3-8/3)", wrong="8+8+3+3")
    await check_steps(
        verifier,
        task,
        live=[[], ["8/3=8/3 left 8 3 8/3\n"], ["8/3=8/3\n", "3-8/3=1/3\n"], ["<answer>8/(3-8/3)</answer>"]],
        dead=[["8+8=16\n"], ["8/3=3\n"], ["8*3=24 left 3 8 25\n"], ["8/3=8/3\n", "<answer>8*3</answer>"]],
    )
    assert isinstance(verifier, StateKey)
    assert isinstance(verifier, StepVerifier)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ([], "correct", ""),
        (["4+8=12 left 4 6 12\n"], "correct", ""),
        (["4+8=12 left 4 6 12\n", "12-6=6\n"], "correct", ""),
        (["8-4=4 left 4 4 6\n"], "wrong", "24 cannot be made from what is left"),
        (["8-4=4 left 4 4 6\n", "4*6=24 left 4 24\n"], "wrong", "24 cannot be made from what is left"),
        (["8-6=2\n", "4*4=16\n", "2+16=18\n"], "wrong", "24 cannot be made from what is left"),
        (["4-8=-4\n", "6*(-4)=-24\n", "-24*4=-96\n"], "wrong", "24 cannot be made from what is left"),
        (["8-4=5\n"], "wrong", "8 - 4 is 4, not 5"),
        (["8-4=4 left 4 6\n"], "wrong", "the numbers left are 4 4 6"),
        (["8-5=3\n"], "wrong", "5 is not among the numbers left"),
        (["8-4-4=0\n"], "wrong", "not a step: 8-4-4=0"),
        (["8-4=5\n", "<answer>4*(6-4)+8*1</answer>"], "wrong", "does not use each number exactly once"),
        (["nonsense = 1\n", "<answer>(4+8)*6/4+6</answer>"], "wrong", "does not use each number exactly once"),
        (["8-4=5\n", "<answer>4*8-4-6+2</answer>", "<answer>(8-4)*6*(4-3)</answer>"], "wrong", None),
        (["8-4=5\n", "<answer>4 + 8 + 6 * 8 / 4</answer>"], "wrong", None),
        (["Answer: 4 * (8 - 6) + 4 * 4"], "wrong", None),
        (["<answer>8*(4-6+4)+8</answer>"], "wrong", None),
        (["<answer>(6-4+4)*8/2</answer>"], "wrong", None),
        (["<answer>8*6/(4-4)</answer>"], "wrong", "divides by zero"),
    ],
)
async def test_reachable_says_why_a_step_is_dead(steps: list[str], status: str, reason: str | None) -> None:
    verdict = await Reachable().verify_step(GAME, steps)
    assert verdict.status.value == status
    assert verdict.score == (1.0 if status == "correct" else 0.0)
    assert reason is None or verdict.reason == reason


@pytest.mark.anyio
async def test_an_answer_counts_whatever_the_steps_before_it_say() -> None:
    answer = solve_countdown([4, 4, 6, 8], 24)
    for text in (f"<answer>{answer}</answer>", f"8-4=5\n<answer>{answer} = 24</answer>", f"Answer: {answer} = 24"):
        assert (await Reachable().verify_step(GAME, [text])).status is VerdictStatus.CORRECT


@pytest.mark.anyio
async def test_many_numbers_are_searched_in_a_thread_and_too_many_not_at_all() -> None:
    five = Task(question="q", data={"numbers": [1, 2, 3, 4, 5], "target": 120})
    assert (await Reachable().verify_step(five, [])).status is VerdictStatus.CORRECT
    many = Task(question="q", data={"numbers": [1] * (MOST + 1), "target": 3})
    verdict = await Reachable().verify_step(many, [])
    assert (verdict.status, verdict.reason) == (VerdictStatus.UNVERIFIED, "7 numbers are left; at most 6 are searched")
    assert (await Reachable().verify_step(many, ["1+1=2\n"])).status is VerdictStatus.CORRECT


@pytest.mark.anyio
async def test_the_target_is_the_argument_or_the_games_or_the_tasks() -> None:
    assert (await get_verifier("reachable:47").verify_step(GAME, [])).score == float(reachable([4, 4, 6, 8], 47))  # type: ignore[attr-defined]
    assert (await Reachable().verify_step(TASK, [])).score == float(reachable([5, 7, 12, 64], 47))
    bare = Task(question="q", data={"numbers": [4, 4, 6, 8]})
    assert (await Reachable().verify_step(bare, [])).status is VerdictStatus.UNVERIFIED
    with pytest.raises(UserError, match=r"takes a target, like reachable:24, not 'x'"):
        get_verifier("reachable:x")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 13), min_size=1, max_size=4), st.integers(-30, 60))
def test_the_search_agrees_with_the_solver(numbers: list[int], target: int) -> None:
    """The solver has no unary minus, so it is asked for the negative of either."""
    signed = {tuple(n * s for n, s in zip(numbers, signs, strict=True)) for signs in _signs(len(numbers))}
    solved = any(solve_countdown(each, goal) is not None for each in signed for goal in (target, -target))
    assert reachable(numbers, target) == solved


def _signs(count: int) -> list[tuple[int, ...]]:
    return [()] if count == 0 else [(sign, *rest) for sign in (1, -1) for rest in _signs(count - 1)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=2, max_size=4), st.data())
def test_a_live_state_has_a_live_step(numbers: list[int], data: st.DataObject) -> None:
    """Backwards: a target that some steps came to can be reached from each state on the way."""
    state = tuple(sorted(numbers))
    path = [state]
    while len(state) > 1:
        i, j = data.draw(st.permutations(range(len(state))))[:2]
        op = data.draw(st.sampled_from("+-*/" if state[j] else "+-*"))
        made = {"+": state[i] + state[j], "-": state[i] - state[j], "*": state[i] * state[j]}.get(op)
        value = Fraction(state[i]) / state[j] if made is None else made
        state = apply(state, Step(state[i], op, state[j], value, None))  # type: ignore[assignment]
        path.append(state)
    assert all(reachable(each, state[0]) for each in path)
