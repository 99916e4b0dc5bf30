"""Steps of a number puzzle as they are written, and the numbers they leave: `walk([6, 4, 2], ["6-4=2 left 2 2"])`.

A step joins two of the numbers that are left into one: `64-5=59 left 7 12 59`, or `6 - 4 = 2 (left: 2 8 8)` as Tree of
Thoughts writes it. It is applied to the numbers that are really left; what the step says is left is never taken over,
only held against them, for whoever continues a false line continues from false numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from researcher.types import Task

Number = int | Fraction
"""Exact; an integer where it is whole, which is also what is quick."""
State = tuple[Number, ...]
"""The numbers that are left, ascending."""

SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
MAX_CHARACTERS = 20_000
MAX_LINE = 400

# At most 30 digits: no number of a puzzle is longer, and reading one stays cheap.
_NUMBER = r"-?\d{1,30}(?:/\d{1,30}|\.\d{1,30})?"
_OPERAND = rf"(?:\(\s*{_NUMBER}\s*\)|{_NUMBER})"
_HEAD = r"(?:step\s+)?\d{1,3}[.):]\s+|[-*•]\s+"
_STEP = re.compile(
    rf"(?:{_HEAD})?({_OPERAND})\s*([-+*/])\s*({_OPERAND})\s*=\s*({_OPERAND})"
    rf"(?:[\s,;]*\(?\s*left((?:[\s,:]+{_OPERAND})*)\s*\)?)?\s*\.?",
    re.ASCII | re.IGNORECASE,
)
# The numbers after "left" have a separator each: runs of digits that could be cut in many ways would cost 2^n tries.
_FIND = re.compile(_OPERAND, re.ASCII)
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_SAID = re.compile(r"\s*answer:(.*)", re.IGNORECASE)


class Puzzle(NamedTuple):
    """What a task asks for."""

    numbers: tuple[int, ...]
    target: int


class Step(NamedTuple):
    """`left op right = made`; `stated`: the numbers it says are left, None where it does not say."""

    left: Number
    op: str
    right: Number
    made: Number
    stated: State | None


class Walk(NamedTuple):
    """What steps come to: the numbers left (None: a step is not legal, `reason` says why), and the answer if given."""

    state: State | None
    answer: str | None = None
    reason: str = ""


def puzzle_of(task: Task, target: int | None = None) -> Puzzle | None:
    """The puzzle that a task's data describe (`numbers`, and `target` where none is fixed); None if they do not."""
    numbers = task.data.get("numbers")
    wanted = task.data.get("target") if target is None else target
    if not (isinstance(numbers, (list, tuple)) and numbers and all(type(n) is int for n in (*numbers, wanted))):
        return None
    assert isinstance(wanted, int)
    return Puzzle(tuple(numbers), wanted)


def walk(numbers: Iterable[int], steps: Sequence[str]) -> Walk:
    """Apply the steps one after the other. Lines that state no equation change nothing; a false one ends it."""
    text = "".join(step if step.endswith("\n") else f"{step}\n" for step in steps)
    if len(text) > MAX_CHARACTERS:
        return Walk(None, reason=f"the steps have more than {MAX_CHARACTERS} characters")
    found = _ANSWER.findall(text) if "<answer>" in text else []
    answer = found[-1].strip() if found else None
    state: State = tuple(sorted(numbers))
    for line in (_ANSWER.sub("\n", text) if found else text).splitlines():
        if (said := _SAID.fullmatch(line)) is not None:
            answer = said.group(1).strip() if answer is None else answer
        elif "=" in line:
            step = parse_step(line)
            if step is None:
                return Walk(None, answer, f"not a step: {line.strip()[:60]}")
            try:
                state = apply(state, step)
            except ValueError as error:
                return Walk(None, answer, str(error))
    return Walk(state, answer)


@lru_cache(maxsize=4096)
def parse_step(line: str) -> Step | None:
    """The step that the line is, or None. Fractions are written `1/2` or, next to `/`, `(1/2)`."""
    match = _STEP.fullmatch(line.strip().translate(SIGNS)) if len(line) <= MAX_LINE else None
    if match is None:
        return None
    left, op, right, made, stated = match.groups()
    try:
        rest = tuple(sorted(map(_number, _FIND.findall(stated)))) if stated and stated.strip() else None
        return Step(_number(left), op, _number(right), _number(made), rest)
    except ZeroDivisionError:
        return None


def apply(state: State, step: Step) -> State:
    """The numbers left after a step. Raises ValueError that says why it is not legal."""
    rest = list(state)
    for operand in (step.left, step.right):
        try:
            rest.remove(operand)
        except ValueError:
            raise ValueError(f"{_short(operand)} is not among the numbers left") from None
    made = join(step.left, step.op, step.right)
    if made is None:
        raise ValueError("it divides by zero")
    if made != step.made:
        wanted = f"{_short(step.left)} {step.op} {_short(step.right)}"
        raise ValueError(f"{wanted} is {_short(made)}, not {_short(step.made)}")
    after = tuple(sorted([*rest, made]))
    if step.stated is not None and step.stated != after:
        raise ValueError(f"the numbers left are {key_of(after)}")
    return after


def join(left: Number, op: str, right: Number) -> Number | None:
    """The value of `left op right`; None for a division by zero."""
    match op:
        case "+":
            return whole(left + right)
        case "-":
            return whole(left - right)
        case "*":
            return whole(left * right)
    return whole(Fraction(left) / right) if right else None


def whole(value: Number) -> Number:
    """The value, as an integer where it is one."""
    return value.numerator if value.denominator == 1 else value


def key_of(state: State) -> str:
    """The canonical text of a state: `2 7/2 12`."""
    return " ".join(map(str, state))


def state_key(puzzle: Puzzle | None, steps: Sequence[str]) -> str | None:
    """The key of the state after these steps. None: no legal state, or an answer was given, which is an end."""
    if puzzle is None:
        return None
    state, answer, _ = walk(puzzle.numbers, steps)
    return None if state is None or answer is not None else key_of(state)


def _number(text: str) -> Number:
    bare = text.strip("() \t")
    return whole(Fraction(bare)) if "/" in bare or "." in bare else int(bare)


def _short(value: Number) -> str:
    text = str(value)
    return text if len(text) <= 30 else "a long number"
