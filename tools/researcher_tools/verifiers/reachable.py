"""The `reachable` verifier: whether the numbers that some steps leave can still make the target. Exact, no model.

For Countdown and the Game of 24. The search is exhaustive over the rationals. Signs do not matter: the rule allows a
unary minus, so `{a, b}` gives `±(a+b)`, `±(a-b)`, `±ab`, `±a/b`, `±b/a`, and it is enough to keep the positive ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd

import anyio.to_thread

from researcher.errors import UserError
from researcher.types import Task, Verdict
from researcher_tools.verifiers.countdown import check_answer
from researcher_tools.verifiers.puzzle_steps import Puzzle, puzzle_of, state_key, walk
from researcher_tools.verifiers.verdicts import settled, unverified

MOST = 6
"""Numbers left that are searched; seven would take minutes."""
INLINE = 4
"""Numbers left up to which the search is quick enough for the event loop (below a millisecond)."""

Ratio = tuple[int, int]


def reachable(left: Iterable[int | Fraction], target: int | Fraction) -> bool:
    """Whether an expression of exactly these numbers, `+ - * /` and parentheses has this value."""
    parts = tuple(sorted((abs(number.numerator), number.denominator) for number in left))
    return _search(parts, (abs(target.numerator), target.denominator))


def _search(parts: tuple[Ratio, ...], target: Ratio) -> bool:
    match parts:
        case ():
            return False
        case (only,):
            return only == target
        case (a, b):
            return _two(a, b, target)
    return _more(parts, target)


@lru_cache(maxsize=100_000)
def _more(parts: tuple[Ratio, ...], target: Ratio) -> bool:
    seen = set()
    for i, a in enumerate(parts):
        for j in range(i + 1, len(parts)):
            b = parts[j]
            if (a, b) in seen:
                continue
            seen.add((a, b))
            rest = [*parts[:i], *parts[i + 1 : j], *parts[j + 1 :]]
            for made in _made(a, b):
                if _search(tuple(sorted([*rest, made])), target):
                    return True
    return False


def _made(a: Ratio, b: Ratio) -> set[Ratio]:
    (x, p), (y, q) = a, b
    ways = {_ratio(x * q + y * p, p * q), _ratio(abs(x * q - y * p), p * q), _ratio(x * y, p * q)}
    if y:
        ways.add(_ratio(x * q, p * y))
    if x:
        ways.add(_ratio(y * p, q * x))
    return ways


def _two(a: Ratio, b: Ratio, target: Ratio) -> bool:
    (x, p), (y, q), (t, r) = a, b, target
    below, left, right = t * p * q, x * q * r, y * p * r
    return bool(
        left + right == below
        or abs(left - right) == below
        or x * y * r == below
        or (y and x * q * r == t * p * y)
        or (x and y * p * r == t * q * x)
    )


def _ratio(above: int, below: int) -> Ratio:
    shared = gcd(above, below)
    return above // shared, below // shared


class Reachable:
    """Checks against `task.data["numbers"]` and `["target"]`; `game24` tasks and `reachable:24` need no target."""

    name = "reachable"

    def __init__(self, target: str = "") -> None:
        if target and not (target.removeprefix("-").isdecimal() and target.isascii() and len(target) <= 30):
            raise UserError(f"The verifier reachable takes a target, like reachable:24, not {target[:40]!r}.")
        self._target = int(target) if target else None

    async def verify(self, task: Task, answer: str) -> Verdict:
        """The strict rule on an answer, as `countdown` has it."""
        return check_answer(self.name, self._puzzle(task), answer)

    async def verify_step(self, task: Task, steps: Sequence[str]) -> Verdict:
        """1 while the target can still be made, 0 once it cannot or a step is false; an answer by the strict rule."""
        puzzle = self._puzzle(task)
        if puzzle is None:
            return check_answer(self.name, puzzle, "")
        state, answer, reason = walk(puzzle.numbers, steps)
        if answer is not None:
            return check_answer(self.name, puzzle, answer)
        if state is None:
            return settled(self.name, False, reason)
        if len(state) > MOST:
            return unverified(self.name, f"{len(state)} numbers are left; at most {MOST} are searched")
        if len(state) > INLINE:
            live = await anyio.to_thread.run_sync(reachable, state, puzzle.target)
        else:
            live = reachable(state, puzzle.target)
        return settled(self.name, live, f"{puzzle.target} cannot be made from what is left")

    def state_key(self, task: Task, steps: Sequence[str]) -> str | None:
        """The numbers left after the steps, ascending; None if a step is not legal or the answer is given."""
        return state_key(self._puzzle(task), steps)

    def _puzzle(self, task: Task) -> Puzzle | None:
        return puzzle_of(task, 24 if self._target is None and task.verifier == "game24" else self._target)
