"""A thought cut into units: `units(text)` gives its sentences, or its lines where it is written as notation."""

from __future__ import annotations

import re

_NOTATION = re.compile(r"^(?:try|check) \S|^[-\d/ ]+:(?:\s|$)|^[-+*/().\d]*\d[-+*/][-+*/().\d]*=|^\W*$")
"""A line of a written search or a calculation: one step, whatever stops it has."""
_HEAD = 200
"""Characters of a line that show whether it is one."""
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_MARKER = re.compile(r"^(?:#{1,6}\s+|[-*•]\s+|\d{1,3}[.)]\s+)")
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*]*\s+(?=[\"'“‘(\[*]*[A-Z0-9\\$\[])|(?<=[。！？])")
_SHORT = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Eq|Fig|Sec|Ch|p|pp|approx|[A-Z])\.$|^\d{1,3}\.$"
)
"""What ends in a full stop and no sentence."""
_NOTE = re.compile(r"^[\W\d_]*$")
"""A mark of a source and the like: part of the sentence before it."""


def units(text: str) -> list[str]:
    """The units of a thought, in order. A fenced block of code is one unit; list marks and empty lines are dropped."""
    found: list[str] = []
    code: list[str] | None = None
    for line in text.splitlines():
        if _FENCE.match(line):
            if code is None:
                code = []
            else:
                found.append("\n".join(["```", *code, "```"]))
                code = None
        elif code is not None:
            code.append(line)
        elif line.strip():
            found += _of_line(line)
    return found if code is None else [*found, "\n".join(["```", *code])]


def is_code(unit: str) -> bool:
    """Whether the unit is a block of code."""
    return unit.startswith("```")


def _of_line(line: str) -> list[str]:
    bare = _MARKER.sub("", line.strip())
    if not bare:
        return []
    if _NOTATION.match(bare[:_HEAD]):
        return [bare]
    parts: list[str] = []
    for piece in filter(None, map(str.strip, _END.split(bare))):
        if parts and (_SHORT.search(parts[-1][-12:]) or _NOTE.match(piece)):
            parts[-1] = f"{parts[-1]} {piece}"
        else:
            parts.append(piece)
    return parts
