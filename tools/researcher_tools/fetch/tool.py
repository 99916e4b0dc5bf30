"""The `fetch` tool: a page of the web from its beginning, passage by passage, numbered so that it can be cited."""

from __future__ import annotations

from researcher.errors import ToolError
from researcher.protocols import ToolResult
from researcher_tools.corpus import render
from researcher_tools.decorator import FunctionTool, tool
from researcher_tools.fetch.fetcher import Fetcher
from researcher_tools.fetch.pages import Page

MAX_CHARACTERS = 4_000
"""Characters of passages that one call shows; the rest is read from the passage it names."""


def open_fetch(fetcher: Fetcher) -> FunctionTool:
    """A `fetch` that reads through this fetcher, which stays its owner's to close."""

    @tool
    async def fetch(url: str, start: int = 1) -> ToolResult:
        """Read a page of the web."""
        page = await fetcher.page(url)
        return shown(page, start)

    return fetch


def shown(page: Page, start: int) -> ToolResult:
    """The passages from the `start`-th on that fit, and how to read on. Raises ToolError where there is none."""
    if not 1 <= start <= len(page.passages):
        raise ToolError(f"The page has passages 1 to {len(page.passages)}; there is none at start={start}.")
    length, end = 0, start - 1
    for passage in page.passages[start - 1 :]:
        length += len(passage.text)
        if end >= start and length > MAX_CHARACTERS:
            break
        end += 1
    passages = page.passages[start - 1 : end]
    content = f"{page.url}\n{render(passages)}"
    if end < len(page.passages):
        content += f"\n({len(page.passages) - end} more passages: fetch the same url with start={end + 1} to go on)"
    return ToolResult(content, page.sources, page.refs(passages), f"web {page.host}")
