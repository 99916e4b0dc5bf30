"""Countdown and the Game of 24, by a rule without holes.

An answer is an expression of `+ - * /`, unary minus, parentheses and decimal integer literals; its literals are
the given numbers, each exactly as often as given; its value, in exact fractions, is the target. Nothing is ever
evaluated by Python itself, and the length is capped, so that no answer can cost more than a moment.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

from researcher.types import Task, Verdict
from researcher_tools.verifiers.puzzle_steps import SIGNS, Puzzle, puzzle_of, state_key
from researcher_tools.verifiers.verdicts import settled, unverified

MAX_LENGTH = 200
"""Characters of an expression."""

_ALLOWED = re.compile(r"[0-9+\-*/() ]+")


class Check(NamedTuple):
    """Whether an expression is a solution; `reason` says why it is not."""

    ok: bool
    reason: str = ""


class _Refused(Exception):
    """What the rule forbids."""


def check_countdown(expression: str, numbers: Sequence[int], target: int) -> Check:
    """Whether the expression makes the target from the numbers, each used once. Never raises for an expression."""
    text = expression.strip(" ")
    if len(text) > MAX_LENGTH:
        return Check(False, f"longer than {MAX_LENGTH} characters")
    if not _ALLOWED.fullmatch(text):
        return Check(False, "only integers, + - * / and parentheses are allowed")
    leaves: Counter[int] = Counter()
    try:
        value = _value(ast.parse(text, mode="eval").body, leaves)
    except (SyntaxError, MemoryError, RecursionError):
        return Check(False, "not an expression")
    except ZeroDivisionError:
        return Check(False, "divides by zero")
    except _Refused as refused:
        return Check(False, str(refused))
    if leaves != Counter(abs(number) for number in numbers):
        return Check(False, "does not use each number exactly once")
    return Check(True) if value == target else Check(False, f"makes {_short(value)}, not {target}")


def _value(node: ast.expr, leaves: Counter[int]) -> Fraction:
    match node:
        case ast.Constant(value=value) if type(value) is int:
            leaves[value] += 1
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, leaves)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, leaves) + _value(right, leaves)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left, leaves) - _value(right, leaves)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left, leaves) * _value(right, leaves)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left, leaves) / _value(right, leaves)
        case _:
            raise _Refused("only integers, + - * / and parentheses are allowed")


def _short(value: Fraction) -> str:
    text = str(value)
    return text if len(text) <= 40 else "something else"


def solve_countdown(numbers: Sequence[int], target: int) -> str | None:
    """A solution, found by trying every way to combine the numbers, or None if there is none."""
    return _solve([(Fraction(number), f"({number})" if number < 0 else str(number)) for number in numbers], target)


def _solve(parts: list[tuple[Fraction, str]], target: int) -> str | None:
    if len(parts) == 1:
        return parts[0][1] if parts[0][0] == target else None
    for i, j in combinations(range(len(parts)), 2):
        rest = [part for k, part in enumerate(parts) if k not in (i, j)]
        for joined in _joined(parts[i], parts[j]):
            found = _solve([joined, *rest], target)
            if found is not None:
                return found
    return None


def _joined(a: tuple[Fraction, str], b: tuple[Fraction, str]) -> list[tuple[Fraction, str]]:
    (x, left), (y, right) = a, b
    ways = [
        (x + y, f"({left}+{right})"),
        (x - y, f"({left}-{right})"),
        (y - x, f"({right}-{left})"),
        (x * y, f"({left}*{right})"),
    ]
    if y:
        ways.append((x / y, f"({left}/{right})"))
    if x:
        ways.append((y / x, f"({right}/{left})"))
    return ways


def check_answer(by: str, puzzle: Puzzle | None, answer: str) -> Verdict:
    """The verdict on an answer; unverified where the task says no numbers and target.

    Written signs (× ÷ −) and a closing `= target` are taken as what they mean; the rest is the strict rule.
    """
    if puzzle is None:
        return unverified(by, "the task has no numbers and target")
    return settled(by, *check_countdown(_plain(answer, puzzle.target), puzzle.numbers, puzzle.target))


def _plain(answer: str, target: int) -> str:
    text = answer.strip().translate(SIGNS)
    body, equals, value = text.rpartition("=")
    return body.strip() if equals and value.strip() == str(target) else text


class Countdown:
    """Checks against `task.data["numbers"]` and `task.data["target"]` (or the fixed target of a game)."""

    def __init__(self, name: str, target: int | None = None) -> None:
        self.name, self._target = name, target

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong, or unverified for a task that does not say its numbers and target."""
        return check_answer(self.name, puzzle_of(task, self._target), answer)

    def state_key(self, task: Task, steps: Sequence[str]) -> str | None:
        """The numbers left after the steps, ascending; None if a step is not legal or the answer is given."""
        return state_key(puzzle_of(task, self._target), steps)


def countdown() -> Countdown:
    """The `countdown` verifier."""
    return Countdown("countdown")


def game24() -> Countdown:
    """The `game24` verifier."""
    return Countdown("game24", 24)
