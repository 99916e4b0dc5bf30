"""Countdown: make a target from the given numbers, by a written search with backtracking and a check.

The search works from both ends. For three numbers it takes one as the last, writes what the other two would have
to make (`64-5=59 64+5=69`), then what they do make (`12+7=19 12-7=5 12*7=84`), until one meets the other. For four
numbers it first joins two (`try 9-7=2`). Values are whole and at most `LIMIT`.
"""

from __future__ import annotations

import ast
import random
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from researcher.strategies.prompts import answer_prompt
from researcher.train.embedded.tasks.example import Example, say, system, user

LIMIT = 198
"""The search does not write products above this."""

PHRASINGS = (
    "Use the numbers {numbers} once each with + - * / to make {target}.",
    "Make {target} from the numbers {numbers}, each used once, with + - * /.",
    "Using each of the numbers {numbers} exactly once and + - * /, make {target}.",
)
MAX_TRIES = 5


class Term(NamedTuple):
    """A value and the expression that makes it."""

    value: int
    text: str
    rank: int
    """0 atom, 1 product or quotient, 2 sum or difference: what needs parentheses."""
    steps: tuple[str, ...] = ()
    """The single steps that make it, as written."""


def is_held_out(numbers: Sequence[int], target: int) -> bool:
    """Whether this problem belongs to evaluation, whatever the order of its numbers: one in ten.

    Of the Game of 24 (four numbers from 1 to 13, target 24) it is every second one.
    """
    if target == 24 and len(numbers) == 4 and max(numbers) <= 13:
        return zlib.crc32(b"24/" + ",".join(map(str, sorted(numbers))).encode()) % 2 == 0
    key = ",".join(map(str, sorted(numbers))) + f"={target}"
    return zlib.crc32(b"countdown/" + key.encode()) % 10 == 0


def value_of(expression: str, numbers: Sequence[int]) -> Fraction | None:
    """The exact value if the expression uses exactly these numbers with + - * / alone, else None."""
    if len(expression) > 200:
        return None
    try:
        leaves: list[int] = []
        value = _evaluate(ast.parse(expression.strip(), mode="eval").body, leaves)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return value if sorted(leaves) == sorted(numbers) else None


def _evaluate(node: ast.expr, leaves: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        leaves.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, leaves)
    if isinstance(node, ast.BinOp):
        a, b = _evaluate(node.left, leaves), _evaluate(node.right, leaves)
        match node.op:
            case ast.Add():
                return a + b
            case ast.Sub():
                return a - b
            case ast.Mult():
                return a * b
            case ast.Div():
                return a / b
    raise ValueError("not arithmetic")


def join(a: Term, op: str, b: Term) -> Term:
    """The term `a op b`, with the parentheses it needs; the caller sees to it that a quotient is whole."""
    left, right = a.text, b.text
    if op in "*/":
        left = f"({left})" if a.rank == 2 else left
        right = f"({right})" if b.rank == 2 or (op == "/" and b.rank == 1) else right
        value, rank = (a.value * b.value if op == "*" else a.value // b.value), 1
    else:
        right = f"({right})" if op == "-" and b.rank == 2 else right
        value, rank = (a.value + b.value if op == "+" else a.value - b.value), 2
    step = f"{a.value}{op}{b.value}={value}"
    return Term(value, f"{left} {op} {right}", rank, (*a.steps, *b.steps, step))


def makes(a: Term, b: Term) -> Iterator[tuple[str, Term]]:
    """What two terms make, each as written (`12-7=5`) and as a term; the larger goes first."""
    x, y = (a, b) if a.value >= b.value else (b, a)
    yield f"{x.value}+{y.value}={x.value + y.value}", join(x, "+", y)
    yield f"{x.value}-{y.value}={x.value - y.value}", join(x, "-", y)
    if y.value > 1:
        if x.value * y.value <= LIMIT:
            yield f"{x.value}*{y.value}={x.value * y.value}", join(x, "*", y)
        if x.value % y.value == 0:
            yield f"{x.value}/{y.value}={x.value // y.value}", join(x, "/", y)
    elif y.value == 1:
        yield f"{x.value}*1={x.value}", join(x, "*", y)


def needs(target: int, last: Term) -> Iterator[tuple[str, int, str]]:
    """What must be made so that `last` finishes it: as written, the value, and how (`r+z`, `r-z`, `z-r`, ...)."""
    t, z = target, last.value
    if t >= z:
        yield f"{t}-{z}={t - z}", t - z, "r+z"
    else:
        yield f"{z}-{t}={z - t}", z - t, "z-r"
    yield f"{t}+{z}={t + z}", t + z, "r-z"
    if z > 1:
        if t % z == 0:
            yield f"{t}/{z}={t // z}", t // z, "r*z"
        if t * z <= LIMIT:
            yield f"{t}*{z}={t * z}", t * z, "r/z"
        if z % t == 0 and z > t:
            yield f"{z}/{t}={z // t}", z // t, "z/r"


def finish(made: Term, last: Term, how: str) -> Term:
    """The whole expression from the made term and the last one."""
    return join(made if how[0] == "r" else last, how[1], made if how[2] == "r" else last)


def search_three(terms: Sequence[Term], target: int, order: Sequence[int]) -> tuple[list[str], Term | None]:
    """The lines of the search over which term comes last, up to the first success."""
    lines: list[str] = []
    for i in order:
        last = terms[i]
        first, second = (term for j, term in enumerate(terms) if j != i)
        wanted = list(needs(target, last))
        line = f"{last.value}: " + " ".join(written for written, _, _ in wanted) + " |"
        for written, term in makes(first, second):
            line += f" {written}"
            how = next((how for _, value, how in wanted if value == term.value), None)
            if how is not None:
                return [*lines, line + " yes"], finish(term, last, how)
        lines.append(line + " no")
    return lines, None


def atoms(numbers: Sequence[int]) -> list[Term]:
    """The numbers as terms."""
    return [Term(number, str(number), 0) for number in numbers]


def solve_three(rng: random.Random, numbers: Sequence[int], target: int) -> tuple[list[str], Term | None]:
    """A search in random order."""
    return search_three(atoms(numbers), target, rng.sample(range(3), 3))


def _starts(numbers: Sequence[int]) -> Iterator[tuple[str, list[Term]]]:
    terms = atoms(numbers)
    for i in range(4):
        for j in range(i + 1, 4):
            rest = [term for k, term in enumerate(terms) if k not in (i, j)]
            for written, term in makes(terms[i], terms[j]):
                if term.value > 0:
                    yield written, [term, *rest]


def solve_four(rng: random.Random, numbers: Sequence[int], target: int) -> tuple[list[str], Term | None]:
    """A search over first joins, of which at most `MAX_TRIES - 1` fail before one that succeeds."""
    good: list[tuple[str, list[Term], list[str], Term | None]] = []
    bad: list[tuple[str, list[Term], list[str], Term | None]] = []
    for written, terms in _starts(numbers):
        order = rng.sample(range(3), 3)
        lines, solution = search_three(terms, target, order)
        (good if solution else bad).append((written, terms, lines, solution))
    if not good:
        return [], None
    rng.shuffle(bad)
    share = len(good) / (len(good) + len(bad))
    failures = 0
    while failures < min(len(bad), MAX_TRIES - 1) and rng.random() > max(share, 0.3):
        failures += 1
    chosen = rng.choice(good)
    lines = []
    for written, terms, tried, _ in [*bad[:failures], chosen]:
        lines += [f"try {written}: " + " ".join(str(term.value) for term in terms), *tried]
    return lines, chosen[3]


def problem(rng: random.Random, count: int, *, held_out: bool = False) -> tuple[list[int], int]:
    """Numbers from 1 to 99 and a target from 10 to 99 that some order of whole steps up to `LIMIT` reaches."""
    while True:
        numbers = [rng.randrange(1, 100) for _ in range(count)]
        target = rng.randrange(10, 100)
        if is_held_out(numbers, target) != held_out:
            continue
        if count == 3 and solve_three(rng, numbers, target)[1]:
            return numbers, target
        if count == 4 and any(search_three(terms, target, (0, 1, 2))[1] for _, terms in _starts(numbers)):
            return numbers, target


def make(rng: random.Random, count: int, *, held_out: bool = False) -> Example:
    """One solved Countdown problem with three or four numbers."""
    numbers, target = problem(rng, count, held_out=held_out)
    question = rng.choice(PHRASINGS).format(numbers=", ".join(map(str, numbers)), target=target)
    lines, solution = (solve_three if count == 3 else solve_four)(rng, numbers, target)
    assert solution is not None
    prompt = answer_prompt(question)
    think = "\n".join([*lines, f"check {' '.join(solution.steps)}"])
    messages = [system(prompt.system), user(prompt.user), say(f"<answer>{solution.text}</answer>", think)]
    return Example("countdown_3" if count == 3 else "countdown_4", messages, (), solution.text, {})
