"""Number puzzles as a search over states: `moves(state)`, `reachable(state, target)`, `solutions(state, target)`.

A state is the numbers that are left, ascending; a move joins two of them, the larger first, so that no number is
ever negative (which loses no solution: a minus sign can always be moved to where it cancels).
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, combinations_with_replacement
from typing import NamedTuple

from researcher.train.embedded.tasks import countdown

Number = int | Fraction
State = tuple[Number, ...]

LARGEST = 999
"""Values above this are not written in solutions."""


class Move(NamedTuple):
    """`left op right = made`."""

    left: Number
    op: str
    right: Number
    made: Number

    @property
    def text(self) -> str:
        """As written: `9-4=5`."""
        return f"{operand(self.left)}{self.op}{operand(self.right)}={self.made}"


class Puzzle(NamedTuple):
    """Numbers in the order of the question, and the target."""

    numbers: tuple[int, ...]
    target: int

    @property
    def state(self) -> State:
        """Where the search begins."""
        return tuple(sorted(self.numbers))

    @property
    def question(self) -> str:
        """The first phrasing; `countdown.PHRASINGS` has the others."""
        return self.ask(0)

    def ask(self, phrasing: int) -> str:
        """One of the phrasings."""
        numbers = ", ".join(map(str, self.numbers))
        return countdown.PHRASINGS[phrasing].format(numbers=numbers, target=self.target)


def operand(number: Number) -> str:
    """The number as it stands in an operation: a fraction in parentheses."""
    return f"({number})" if isinstance(number, Fraction) else str(number)


def whole(number: Number) -> Number:
    """An integer where the value is one."""
    return number.numerator if isinstance(number, Fraction) and number.denominator == 1 else number


def joins(x: Number, y: Number, *, fractions: bool = False) -> Iterator[Move]:
    """What two numbers make; quotients only where they are whole unless `fractions`."""
    a, b = (x, y) if x >= y else (y, x)
    yield Move(a, "+", b, whole(a + b))
    if a > b:
        yield Move(a, "-", b, whole(a - b))
    yield Move(a, "*", b, whole(a * b))
    if b > 1 or fractions:
        made = whole(Fraction(a) / b) if b else a
        if b and (fractions or isinstance(made, int)):
            yield Move(a, "/", b, made)
        if fractions and a != b:
            yield Move(b, "/", a, whole(Fraction(b) / a))


def moves(state: State, *, fractions: bool = False) -> Iterator[tuple[Move, State]]:
    """Each move once, with the state after it."""
    seen: set[tuple[Number, Number]] = set()
    for i, j in combinations(range(len(state)), 2):
        if (state[i], state[j]) in seen:
            continue
        seen.add((state[i], state[j]))
        rest = [number for k, number in enumerate(state) if k not in (i, j)]
        for move in joins(state[i], state[j], fractions=fractions):
            yield move, tuple(sorted([*rest, move.made]))


def reachable(state: State, target: int) -> bool:
    """Whether the numbers can still make the target, with fractions on the way."""
    return _reachable(tuple(sorted(float(number) for number in state)), float(target))


@lru_cache(maxsize=200_000)
def _reachable(state: tuple[float, ...], target: float) -> bool:
    # floats decide exactly here: rationals of four numbers below 100 differ by far more than the tolerance
    if len(state) == 1:
        return abs(state[0] - target) < 1e-7
    if len(state) == 2:
        b, a = state
        return (
            abs(a + b - target) < 1e-7
            or abs(a - b - target) < 1e-7
            or abs(a * b - target) < 1e-7
            or (b > 1e-9 and abs(a / b - target) < 1e-7)
            or (a > 1e-9 and abs(b / a - target) < 1e-7)
        )
    for i, j in combinations(range(len(state)), 2):
        b, a = state[i], state[j]
        rest = [number for k, number in enumerate(state) if k not in (i, j)]
        for made in (a + b, a - b, a * b, a / b if b > 1e-9 else a, b / a if a > 1e-9 else b):
            if _reachable(tuple(sorted([*rest, made])), target):
                return True
    return False


def solutions(state: State, target: int, *, fractions: bool = False) -> list[tuple[Move, ...]]:
    """All sequences of moves to the target whose values stay below `LARGEST`."""
    found: list[tuple[Move, ...]] = []
    for move, after in moves(state, fractions=fractions):
        if move.made > LARGEST:
            continue
        if len(after) == 1:
            if after[0] == target:
                found.append((move,))
        elif len(after) > 2 or reachable(after, target):
            found += [(move, *path) for path in solutions(after, target, fractions=fractions)]
    return found


def solve(rng: random.Random, state: State, target: int) -> tuple[Move, ...] | None:
    """One solution: of the whole ones where there are some, those of small values more often."""
    paths = solutions(state, target)
    if not paths and reachable(state, target):
        paths = solutions(state, target, fractions=True)
    if not paths:
        return None
    return rng.choices(paths, [1 / float(max(move.made for move in path)) for path in paths])[0]


def walk(rng: random.Random, state: State, length: int) -> tuple[Move, ...]:
    """Random whole moves, small values more often."""
    path: list[Move] = []
    for _ in range(length):
        options = list(moves(state))
        move, state = rng.choices(options, [1 / (float(m.made) + 20) for m, _ in options])[0]
        path.append(move)
    return tuple(path)


def after(state: State, path: Sequence[Move]) -> State:
    """The state after these moves."""
    left = list(state)
    for move in path:
        left.remove(move.left)
        left.remove(move.right)
        left.append(move.made)
    return tuple(sorted(left))


def lines(state: State, path: Sequence[Move]) -> list[str]:
    """The steps as written: `9-4=5 left 5 7`."""
    written = []
    for i, move in enumerate(path):
        left = after(state, path[: i + 1])
        written.append(f"{move.text} left {' '.join(map(str, left))}")
    return written


def expression(state: State, path: Sequence[Move]) -> str:
    """The whole expression that the moves make, with the parentheses it needs."""
    terms: list[tuple[Number, str, int]] = [(number, str(number), 0) for number in state]
    for move in path:
        left, right = _take(terms, move.left), _take(terms, move.right)
        rank = 1 if move.op in "*/" else 2
        a = f"({left[1]})" if left[2] > rank else left[1]
        b = f"({right[1]})" if right[2] > rank or (move.op in "-/" and right[2] == rank) else right[1]
        terms.append((move.made, f"{a} {move.op} {b}", rank))
    return terms[-1][1]


def _take(terms: list[tuple[Number, str, int]], value: Number) -> tuple[Number, str, int]:
    # the newest term of this value, so that what was just made is used first
    i = max(i for i, term in enumerate(terms) if term[0] == value)
    return terms.pop(i)


def worked(text: str) -> tuple[list[int], list[str], Number | None]:
    """An expression's numbers, its single operations as written, and its value (None: a division by zero)."""
    leaves: list[int] = []
    steps: list[str] = []

    def value(node: ast.expr) -> Number:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            leaves.append(node.value)
            return node.value
        if not isinstance(node, ast.BinOp):
            raise ValueError("not arithmetic")
        a, b = value(node.left), value(node.right)
        match node.op:
            case ast.Add():
                made: Number = a + b
                op = "+"
            case ast.Sub():
                made, op = a - b, "-"
            case ast.Mult():
                made, op = a * b, "*"
            case _:
                made, op = Fraction(a) / b, "/"
        made = whole(made)
        steps.append(f"{operand(a)}{op}{operand(b)}={made}")
        return made

    try:
        made: Number | None = value(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        made = None
    return sorted(leaves), steps, made


@lru_cache(maxsize=2)
def game_of_24(held_out: bool) -> tuple[tuple[int, ...], ...]:
    """The solvable multisets of the Game of 24 on one side of the hold-out, which halves them."""
    hands = combinations_with_replacement(range(1, 14), 4)
    return tuple(h for h in hands if countdown.is_held_out(h, 24) == held_out and reachable(h, 24))


def draw(rng: random.Random, kind: str, *, held_out: bool = False) -> Puzzle:
    """A solvable puzzle: Countdown with `3` or `4` numbers, or the Game of `24`."""
    if kind == "24":
        hand = list(rng.choice(game_of_24(held_out)))
        rng.shuffle(hand)
        return Puzzle(tuple(hand), 24)
    numbers, target = countdown.problem(rng, int(kind), held_out=held_out)
    return Puzzle(tuple(numbers), target)
