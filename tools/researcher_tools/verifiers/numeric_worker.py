"""The process in which math-verify runs: one JSON line in, one out, until its input ends.

Parsing and comparing mathematics may take for ever or all memory, in native loops that no exception ends; so the
parent kills this process at its deadline. Its memory is limited here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

MEMORY = 2 * 2**30
"""Bytes of address space."""


def main() -> None:
    """Answer `{"gold": ..., "answer": ...}` with `{"right": true | false | null}`; null: the gold cannot be read."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is not a reply
    _limit()
    logging.disable(logging.CRITICAL)
    from math_verify import verify

    _read("1", dollars=True)  # loads the grammar now, so that the first answer has its full time
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        gold, answer = _read_both(asked["gold"], asked["answer"])
        right = bool(verify(gold, answer, timeout_seconds=None)) if gold else None
        _reply(replies, {"right": right})


def _read_both(gold: str, answer: str) -> tuple[list[Any], list[Any]]:
    """What math-verify finds in each. LaTeX, sets and tuples are found only between dollars: then in both."""
    found = _read(gold, dollars="\\" in gold)
    if found:
        return found, _read(answer, dollars="\\" in answer)
    return _read(gold, dollars=True), _read(answer, dollars=True)


def _read(text: str, *, dollars: bool) -> list[Any]:
    from math_verify import parse

    bare = "$" not in text and "\\boxed" not in text
    shown = f"${text}$" if dollars and bare else text
    found: list[Any] = parse(shown, parsing_timeout=None)  # pyright: ignore[reportArgumentType]  # None: no SIGALRM
    return found


def _reply(replies: object, value: dict[str, bool | None]) -> None:
    print(json.dumps(value), file=replies, flush=True)  # type: ignore[call-overload]


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on this platform; the deadline still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
