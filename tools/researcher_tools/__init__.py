"""Tools for reasoner threads: `@tool` makes one from a function, `open_tools` opens those of a run by name.

Names load when they are first used: `researcher_tools.secrets` does not start with the whole index.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from researcher_tools.decorator import tool
    from researcher_tools.documents import Documents, open_corpus, open_documents
    from researcher_tools.registry import open_tools, tool_names

_HOMES = {
    "Documents": "documents",
    "open_corpus": "documents",
    "open_documents": "documents",
    "open_tools": "registry",
    "tool": "decorator",
    "tool_names": "registry",
}

__all__ = ["Documents", "open_corpus", "open_documents", "open_tools", "tool", "tool_names"]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
