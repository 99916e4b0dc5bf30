"""Finds a strategy by name and builds it from checked parameters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from researcher.errors import UserError
from researcher.protocols import Strategy

GROUP = "researcher.strategies"


def strategy_names() -> list[str]:
    """The names of the installed strategies, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


@cache  # to look through all installed packages takes ten milliseconds, and an evaluation starts thousands of runs
def strategy_class(name: str) -> type[BaseModel]:
    """The strategy's class, a pydantic model of its parameters. Raises UserError with the nearest names."""
    for point in entry_points(group=GROUP, name=name):
        loaded = point.load()
        assert isinstance(loaded, type)
        assert issubclass(loaded, BaseModel)
        return loaded
    raise UserError(f"There is no strategy {name!r}; {_nearest(name, strategy_names())}")


def load_strategy(name: str, params: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy with these parameters. Raises UserError that names the parameter and what it takes."""
    cls = strategy_class(name)
    for key in params or {}:
        if key not in cls.model_fields:
            known = _nearest(key, sorted(cls.model_fields))
            raise UserError(f"Strategy {name} has no parameter {key!r}; {known}")
    try:
        strategy = cls.model_validate(dict(params or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"Strategy {name}, parameter {field!r}: {first['msg']} (got {first['input']!r}).") from None
    assert isinstance(strategy, Strategy)
    return strategy


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}."
