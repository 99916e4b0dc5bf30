"""Many reasoner threads on served language models, merged in a thought graph: answers with their evidence.

    async with Orchestrator(documents="docs") as orchestrator:
        result = await orchestrator.answer("Who founded Velar?")
        print(result.answer.text)

Names load when they are first used: `import researcher.types` does not start with the whole engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from researcher_tools import tool

    from researcher.engine import Orchestrator, Prices, Run, RunResult, RunStats
    from researcher.errors import BoundaryError, LimitExceeded, ResearcherError, ToolError, UserError
    from researcher.graph import ThoughtGraph
    from researcher.types import Answer, Budget, Outcome, Task

__version__ = "0.1.0"

_HOMES = {
    "Answer": "researcher.types",
    "BoundaryError": "researcher.errors",
    "Budget": "researcher.types",
    "LimitExceeded": "researcher.errors",
    "Orchestrator": "researcher.engine",
    "Outcome": "researcher.types",
    "Prices": "researcher.engine",
    "ResearcherError": "researcher.errors",
    "Run": "researcher.engine",
    "RunResult": "researcher.engine",
    "RunStats": "researcher.engine",
    "Task": "researcher.types",
    "ThoughtGraph": "researcher.graph",
    "ToolError": "researcher.errors",
    "UserError": "researcher.errors",
    "tool": "researcher_tools",
}

__all__ = [
    "Answer",
    "BoundaryError",
    "Budget",
    "LimitExceeded",
    "Orchestrator",
    "Outcome",
    "Prices",
    "ResearcherError",
    "Run",
    "RunResult",
    "RunStats",
    "Task",
    "ThoughtGraph",
    "ToolError",
    "UserError",
    "tool",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
