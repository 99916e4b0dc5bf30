"""The `python` tool: runs code in a sandbox and gives what it printed, like an interactive session would."""

from __future__ import annotations

import ast
import warnings

from pydantic import BaseModel, ConfigDict, Field

from researcher.protocols import ExecRequest, Sandbox, Tool, ToolResult
from researcher_tools.decorator import tool
from researcher_tools.printed import MAX_CODE, MEMORY, OUTPUT, SECONDS, refusal, shown
from researcher_tools.python_session import SessionPython


class PythonSettings(BaseModel):
    """What a user may set of the tool, in the table `[python]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    session: bool = False
    """Whether each thread's interpreter keeps its names from call to call."""
    sessions: int = Field(default=0, ge=0)
    """At most so many at once; 0: as many as the sandbox says it can hold."""


def open_python(
    sandbox: Sandbox, *, seconds: float = SECONDS, memory: int = MEMORY, session: bool = False, sessions: int = 0
) -> Tool:
    """A `python` tool on this sandbox, which stays its owner's to close.

    Each call is a script of its own; with `session`, each thread has an interpreter that keeps its names from call to
    call, at most `sessions` of them at once (0: as many as the sandbox says it can hold).
    """
    if session:
        return SessionPython(sandbox, show_last, seconds=seconds, memory=memory, sessions=sessions)

    @tool
    async def python(code: str) -> ToolResult:
        """Run Python code."""
        refused = refusal(code)
        if refused:
            return ToolResult(f"Error: {refused}", origin="sandbox")
        request = ExecRequest(show_last(code), seconds=seconds, memory=memory, output=OUTPUT)
        return ToolResult(shown(await sandbox.run(request)), origin="sandbox")

    return python


def show_last(code: str) -> str:
    """The code, changed so that the value of a last bare expression is printed unless it is None.

    The value is turned into text inside the sandbox, under its limits. Code that cannot be parsed here is left as
    it is: the sandbox says what is wrong with it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the model's code, which is the sandbox's to judge
            body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    if not body or not isinstance(body[-1], ast.Expr):
        return code
    last = body[-1].value
    data = code.encode("utf-8")
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    assert last.end_lineno is not None
    assert last.end_col_offset is not None
    begin = starts[last.lineno - 1] + last.col_offset
    end = starts[last.end_lineno - 1] + last.end_col_offset
    changed = data[:begin] + b"_last = (" + data[begin:end] + b")\nif _last is not None: print(repr(_last))"
    return changed.decode("utf-8")


__all__ = ["MAX_CODE", "PythonSettings", "open_python", "show_last"]
