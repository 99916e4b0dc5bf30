"""Asks the person at the terminal whether a tool call may be made: the callback behind the approval `ask`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Literal

import anyio

from researcher.cli.live import Screen
from researcher.cli.output import Output
from researcher.errors import UserError
from researcher.protocols import Approve, Asking
from researcher.replay.frames import clip

ARGUMENTS = 400
"""Characters of a call's arguments that are shown; they are a model's words, and a page's before that."""
NAMED, ARGUMENT = 12, 200
"""Where they are longer: arguments that are shown by name, and characters of each."""
ORIGINS = 12
"""Origins that are named; the rest is counted."""
LINE = 4_096
"""Bytes that a terminal gives at most as one line."""

_WORDS: dict[str, Literal["yes", "no", "always", "never"]] = {
    "y": "yes", "yes": "yes", "n": "no", "no": "no", "a": "always", "always": "always", "never": "never", "v": "never",
}  # fmt: skip


def policies(pairs: Iterable[str]) -> dict[str, str]:
    """`["fetch=ask"]` as the setting `approval`; a value that there is not is refused with the other settings."""
    found: dict[str, str] = {}
    for pair in pairs:
        tool, equals, policy = pair.partition("=")
        if not equals or not tool.strip():
            raise UserError(f"--approve {pair}: write TOOL=always, TOOL=ask or TOOL=never")
        found[tool.strip()] = policy.strip()
    return found


def at_terminal(output: Output, screen: Screen) -> Approve | None:
    """What asks the person there; None where there is no terminal to ask on and to answer at."""
    if not output.err.is_terminal or not sys.stdin.isatty():
        return None
    return Questions(output, screen, sys.stdin.fileno())


class Questions:
    """One question at a time, in the order in which they came; answers for the whole run are remembered by tool."""

    def __init__(self, output: Output, screen: Screen, keyboard: int) -> None:
        self._output, self._screen, self._keyboard = output, screen, keyboard
        self._one = anyio.Lock()
        self._settled: dict[str, bool] = {}

    async def __call__(self, asking: Asking) -> bool:
        """The person's word on this call. End of input is a no."""
        async with self._one:
            if (settled := self._settled.get(asking.tool)) is not None:
                return settled
            with self._screen.question():
                word = await self._word(asking)
        if word in ("always", "never"):
            self._settled[asking.tool] = word == "always"
        return word in ("yes", "always")

    async def _word(self, asking: Asking) -> str:
        self._output.note(described(asking))
        while True:
            self._output.ask("allow? [y]es, [n]o, [a]lways in this run, ne[v]er in this run: ")
            line = await self._line()
            if line is None:
                return "no"
            if (word := _WORDS.get(line.strip().lower())) is not None:
                return word

    async def _line(self) -> str | None:
        """What was typed, without a thread that would go on reading when nobody waits any more; None at the end."""
        await anyio.wait_readable(self._keyboard)
        data = os.read(self._keyboard, LINE)
        return data.decode("utf-8", "replace") if data else None


def described(asking: Asking) -> str:
    """The question's lines: who wants to call what, and whose words it has read before."""
    lines = [f"thread {clip(asking.thread, 80)} wants to call {clip(asking.tool, 80)}"]
    lines += [f"  with {line}" for line in _arguments(asking.arguments)]
    if asking.origins:
        named = ", ".join(clip(origin, 60) for origin in asking.origins[:ORIGINS])
        more = len(asking.origins) - ORIGINS
        lines.append(f"  after it has read: {named}" + (f" and {more} more" if more > 0 else ""))
    else:
        lines.append("  before it has read anything but the task")
    return "\n".join(lines)


def _arguments(text: str) -> list[str]:
    """The arguments whole where they are short; else each by its name, so that a long one hides no other."""
    shown = escaped(text)
    if len(shown) <= ARGUMENTS:
        return [clip(shown, ARGUMENTS)]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return [f"{clip(shown, ARGUMENTS)} ({len(shown):,} characters)"]
    lines = []
    for name, value in list(found.items())[:NAMED]:
        said = escaped(json.dumps(value, ensure_ascii=False))
        more = f" ({len(said):,} characters)" if len(said) > ARGUMENT else ""
        lines.append(f"{clip(escaped(name), 60)}: {clip(said, ARGUMENT)}{more}")
    return [*lines, f"{len(found) - NAMED} more arguments"] if len(found) > NAMED else lines


def escaped(text: str) -> str:
    """The text with what a terminal would obey or hide spelled out, so that it can be seen."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
