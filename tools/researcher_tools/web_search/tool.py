"""The `web_search` tool: what search engines have for a query, as data whose words are strangers'."""

from __future__ import annotations

import hashlib

from researcher.protocols import SearchHit, Source, ToolResult
from researcher.types import SourceRef
from researcher_tools.decorator import FunctionTool, tool
from researcher_tools.web_search.backend import asked
from researcher_tools.web_search.federated import Federated, Found, whose
from researcher_tools.web_search.text import line

RESULTS = 8
"""How many results a search shows."""


def open_web_search(search: Federated, results: int = RESULTS) -> FunctionTool:
    """A `web_search` over these backends, which stay their owner's to close."""

    @tool
    async def web_search(query: str) -> ToolResult:
        """Search the web."""
        found = await search.ask(query, results)
        return ToolResult(render(found), sources(found, asked(query)), origin=origin(found))

    return web_search


def render(found: Found) -> str:
    """What a model reads: four lines a hit, then who failed. No number in brackets: a snippet is not a passage to cite,
    it is a search engine's excerpt of a page that nobody has read yet."""
    lines = [part for hit in found.hits for part in _entry(hit)]
    if not found.hits:
        lines.append(f"Nothing was found by {', '.join(found.answers)}.")
    lines += [f"Not searched: {failure.reason}" for failure in found.failures]
    return "\n".join(lines)


def sources(found: Found, query: str) -> tuple[Source, ...]:
    """Each backend's reply as it came, once: what shows later that such results came, and what else was among them."""
    made: dict[str, Source] = {}
    for name, hits in found.answers.items():
        digest = hashlib.sha256(hits.raw).hexdigest()
        ref = SourceRef(sha256=digest, name=f"search {name}: {line(query, 100)}", media_type=hits.media_type)
        made.setdefault(digest, Source(ref, hits.raw))
    return tuple(made.values())


def origin(found: Found) -> str:
    """Whose words the result has: those of each backend that answered or said why it did not."""
    names = [*found.answers, *(failure.backend for failure in found.failures)]
    return ",".join(map(whose, names))


def _entry(hit: SearchHit) -> list[str]:
    # Made harmless here too: a backend of another maker may not have done so.
    whence = hit.origin.replace(",", ", ") + (f", {hit.published}" if hit.published else "")
    texts = (hit.address, hit.snippet, f"({whence})")
    return [f"{hit.rank}. {line(hit.title, 300)}", *(f"   {line(text, 2_000)}" for text in texts if text)]
