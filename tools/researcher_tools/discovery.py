"""Finds a plug-in by name among the installed entry points, and names the nearest where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from researcher.errors import UserError


@cache  # to look through all installed packages takes eight milliseconds, and every run opens its tools and verifiers
def _installed(look: Callable[..., Iterable[EntryPoint]], group: str) -> tuple[EntryPoint, ...]:
    return tuple(look(group=group))


def names(group: str, built_in: dict[str, str]) -> list[str]:
    """The names of this group: what this package has and what others install, sorted."""
    return sorted({*built_in, *(point.name for point in _installed(entry_points, group))})


def load(group: str, name: str, *, what: str, built_in: dict[str, str]) -> Any:
    """The object under a name; an installed one stands before a built-in. Raises UserError with the nearest names.

    `what`: the field's word for such an object, for the error.
    """
    points = [point for point in _installed(entry_points, group) if point.name == name]
    if not points and name in built_in:
        points = [EntryPoint(name, built_in[name], group)]
    if not points:
        known = names(group, built_in)
        close = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}."
        raise UserError(f"There is no {what} {name!r}; {hint}")
    try:
        return points[0].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"The {what} {name!r} ({points[0].value}) cannot be loaded: {error}.") from error
