"""The `python` tool: runs code in a sandbox and gives what it printed, like an interactive session would."""

from __future__ import annotations

import ast
import warnings

from researcher.protocols import ExecRequest, ExecResult, Sandbox
from researcher_tools.tool import FunctionTool, tool

MAX_CODE = 16_384
"""Characters of code; also what bounds the parser that looks for the last expression."""

SECONDS = 5.0
MEMORY = 128 * 2**20
OUTPUT = 8_192


def open_python(sandbox: Sandbox, *, seconds: float = SECONDS, memory: int = MEMORY) -> FunctionTool:
    """A `python` tool on this sandbox, which stays its owner's to close."""

    @tool
    async def python(code: str) -> str:
        """Run Python code."""
        refused = _refuse(code)
        if refused:
            return refused
        request = ExecRequest(show_last(code), seconds=seconds, memory=memory, output=OUTPUT)
        return _text(await sandbox.run(request))

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
    shown = data[:begin] + b"_last = (" + data[begin:end] + b")\nif _last is not None: print(repr(_last))"
    return shown.decode("utf-8")


def _refuse(code: str) -> str:
    if len(code) > MAX_CODE:
        return f"Error: the code has {len(code)} characters; at most {MAX_CODE} can run."
    if not code.strip():
        return "Error: there is no code to run."
    try:
        code.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"Error: the code is not valid Unicode text at character {error.start}."
    return ""


def _text(result: ExecResult) -> str:
    """What the model reads: the output, then how it ended if it did not end well."""
    output = _legible(result.stdout).rstrip("\n")
    if result.status == "ok":
        return output or "(no output: print what you want to see)"
    named = {"timeout": "Timeout: ", "oom": "Out of memory: ", "output_limit": "Too much output: "}
    error = f"{named.get(result.status, 'Error: ')}{_legible(result.error) or result.status}"
    return f"{output}\n{error}" if output else error


def _legible(text: str) -> str:
    """The text with control characters and lone surrogates escaped; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)
