"""The `read` tool: one document from its beginning, passage by passage, numbered so that it can be cited."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from researcher.errors import ToolError
from researcher.protocols import ToolResult
from researcher_tools.corpus import Passage, render
from researcher_tools.decorator import FunctionTool, tool
from researcher_tools.lookup import Lookup

MAX_CHARACTERS = 2_000
"""Characters of passages that one call shows; the rest is read by the number it names."""

_FROM = re.compile(r"(.+)#(\d{1,9})", re.DOTALL)


def open_read(lookup: Lookup) -> FunctionTool:
    """A `read` over these documents."""
    documents = lookup.documents

    @tool
    async def read(source: str) -> ToolResult:
        """Read a document."""
        name, first = _address(source.strip(), documents.sources)
        passages = await lookup.run(lambda: documents.corpus.read(name))
        rest = [passage for passage in passages if passage.n >= first]
        if not rest:
            raise ToolError(f"{name} has no passage {first}; its last one is {passages[-1].n}.")
        shown = _fitting(rest)
        content = render(shown)
        if len(shown) < len(rest):
            content += f'\n({len(rest) - len(shown)} more passages: read "{name}#{rest[len(shown)].n}" to go on)'
        sources, refs = documents.cited(shown)
        return ToolResult(content, sources, refs, origin="documents")

    return read


def _address(source: str, known: Iterable[str]) -> tuple[str, int]:
    """(name, first passage) of `name` or `name#17`. Raises ToolError with the closest names."""
    names = list(known)
    found = _named(source, names)
    if found is not None:
        return found, 0
    match = _FROM.fullmatch(source)
    found = _named(match.group(1), names) if match else None
    if match and found is not None:
        return found, int(match.group(2))
    close = get_close_matches(source[:200], names[:10_000], 3, 0.4)
    hint = f"the closest are {', '.join(close)}" if close else f"there are {', '.join(names[:3])} and others"
    raise ToolError(f"There is no document {source[:200]!r}; {hint}.")


def _named(source: str, names: list[str]) -> str | None:
    if source in names:
        return source
    same = [name for name in names if name.casefold() == source.casefold()]
    return same[0] if len(same) == 1 else None


def _fitting(passages: list[Passage]) -> list[Passage]:
    """The first passages that fit together, at least one."""
    length = 0
    for i, passage in enumerate(passages):
        length += len(passage.text)
        if i and length > MAX_CHARACTERS:
            return passages[:i]
    return passages
