"""The Games of 24 in the order of Tree of Thoughts: `puzzles()[900]` is the first of its 100 test puzzles."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

TEST = range(900, 1000)
"""The puzzles that Tree of Thoughts and its followers report on."""

Quadruple = tuple[int, int, int, int]

_DIGITS = "0123456789abcd"


@cache
def puzzles() -> tuple[Quadruple, ...]:
    """All 1,362, ascending each, from the easiest for people to the hardest. `data/game24.txt` names the source."""
    text = files("researcher.evals").joinpath("data", "game24.txt").read_text("utf-8")
    words = [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]
    return tuple(_quadruple(word) for word in words)


def _quadruple(word: str) -> Quadruple:
    a, b, c, d = (_DIGITS.index(letter) for letter in word)
    return a, b, c, d
