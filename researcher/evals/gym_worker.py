"""The process in which reasoning-gym scores: an item and an answer in, `{"score": ..., "lenient": ...}` out.

`lenient` is a text that is no answer and gets the full score as well; None where there is none. `{"reason": ...}`: no
score could be had.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from researcher_tools.verifiers.worker import Reply, answer_lines

REASON = 200
PROBES = ("{} or maybe not", "not {}", "{}?", "{} {}", "no answer at all")
"""What a strict scorer refuses."""


def prepare() -> Callable[[Reply], Reply]:
    """The scoring, with the library loaded."""
    importlib.import_module("reasoning_gym")
    return score


def score(asked: Reply) -> Reply:
    """The score of the generator's own scorer."""
    try:
        data = _data(asked["generator"], asked["seed"], asked["size"])
        item = data[asked["index"]]
        if item["question"] != asked["asked"]:
            return {"reason": "the generator gives another item at each look"}
        found = float(data.score_answer(asked["answer"], item))
    except Exception as error:  # whatever a scorer raises on a malformed answer
        return {"reason": f"the scorer raised {type(error).__name__}: {error}"[:REASON]}
    return {"score": found, "lenient": _lenient(data, item, asked["answer"]) if found == 1.0 else None}


def _lenient(data: Any, item: Any, answer: str) -> str | None:
    for probe in PROBES:
        text = probe.replace("{}", answer)
        try:
            if float(data.score_answer(text, item)) == 1.0:
                return text[:REASON]
        except Exception:  # it does not take it, which is what is asked
            continue
    return None


@cache
def _data(generator: str, seed: int, size: int) -> Any:
    factory: Any = importlib.import_module("reasoning_gym.factory")
    return factory.create_dataset(generator, seed=seed, size=size)


if __name__ == "__main__":
    answer_lines(prepare)
