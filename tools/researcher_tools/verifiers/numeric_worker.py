"""The process in which math-verify runs: `{"gold": ..., "answer": ...}` in, `{"right": true | false | null}` out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from researcher_tools.verifiers.worker import Reply, answer_lines

ROUNDED, EXACT = 6, 12
"""Decimals that must agree: of a gold that is a decimal, itself rounded, and of any other."""

_LATEX = re.compile(r"[\\^_{]")


def prepare() -> Callable[[Reply], Reply]:
    """The comparison, with the grammar loaded, so that the first answer has its full time."""
    logging.disable(logging.CRITICAL)
    _read("1", dollars=True)
    return compare


def compare(asked: Reply) -> Reply:
    """Whether gold and answer are equal, each read as what it looks like or both as LaTeX; null: no such gold."""
    from math_verify import verify

    digits = ROUNDED if "." in asked["gold"] else EXACT
    texts = asked["gold"], asked["answer"]
    read = False
    for dollars in ([_LATEX.search(text) is not None for text in texts], [True, True]):
        gold, answer = (_read(text, dollars=each) for text, each in zip(texts, dollars, strict=True))
        read = read or bool(gold)
        if gold and verify(gold, answer, float_rounding=digits, timeout_seconds=None):
            return {"right": True}
    return {"right": False if read else None}


def _read(text: str, *, dollars: bool) -> list[Any]:
    from math_verify import parse

    bare = "$" not in text and "\\boxed" not in text
    shown = f"${text}$" if dollars and bare else text
    found: list[Any] = parse(shown, parsing_timeout=None)  # pyright: ignore[reportArgumentType]  # None: no SIGALRM
    return found


if __name__ == "__main__":
    answer_lines(prepare)
