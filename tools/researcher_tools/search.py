"""The `search` tool: the best passages of the documents for a query, numbered so that they can be cited."""

from __future__ import annotations

from researcher.errors import ToolError
from researcher.protocols import ToolResult
from researcher_tools.corpus import render
from researcher_tools.decorator import FunctionTool, tool
from researcher_tools.lookup import Lookup

PASSAGES = 4
"""How many passages a search shows."""

MAX_QUERY = 1_000
"""Characters of a query; a longer one costs the index more than a thread may take."""


def open_search(lookup: Lookup) -> FunctionTool:
    """A `search` over these documents."""
    documents = lookup.documents

    @tool
    async def search(query: str) -> ToolResult:
        """Search the documents."""
        if len(query) > MAX_QUERY:
            raise ToolError(f"The query has {len(query)} characters; at most {MAX_QUERY} can be searched.")
        hits = await lookup.run(lambda: documents.corpus.search(query, PASSAGES))
        sources, passages = documents.cited(hits)
        return ToolResult(render(hits), sources, passages, origin="documents")

    return search
