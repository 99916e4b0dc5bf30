"""Tools for reasoner threads: `@tool` makes one from a function, `open_tools` opens those of a run by name."""

from __future__ import annotations

from researcher_tools.documents import Documents, open_corpus, open_documents
from researcher_tools.registry import open_tools, tool_names
from researcher_tools.tool import tool

__all__ = ["Documents", "open_corpus", "open_documents", "open_tools", "tool", "tool_names"]
