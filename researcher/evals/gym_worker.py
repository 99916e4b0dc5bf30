"""The process in which reasoning-gym scores: an item and an answer in, `{"score": ...}` or `{"reason": ...}` out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from researcher_tools.verifiers.worker import Reply, answer_lines

REASON = 200


def prepare() -> Callable[[Reply], Reply]:
    """The scoring, with the library loaded."""
    importlib.import_module("reasoning_gym")
    return score


def score(asked: Reply) -> Reply:
    """The score of the generator's own scorer."""
    try:
        data, item = _item(asked["generator"], asked["seed"], asked["size"], asked["index"])
        return {"score": float(data.score_answer(asked["answer"], item))}
    except Exception as error:  # whatever a scorer raises on a malformed answer
        return {"reason": f"the scorer raised {type(error).__name__}: {error}"[:REASON]}


@cache
def _data(generator: str, seed: int, size: int) -> Any:
    factory: Any = importlib.import_module("reasoning_gym.factory")
    return factory.create_dataset(generator, seed=seed, size=size)


def _item(generator: str, seed: int, size: int, index: int) -> tuple[Any, Any]:
    data = _data(generator, seed, size)
    return data, data[index]


if __name__ == "__main__":
    answer_lines(prepare)
