"""The `code` tool: compiles and runs a program with its input and its files, in a language that the sandbox knows.

For tasks about code. Each call begins in an empty folder; what is to be kept is named, and comes back as a source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from researcher.errors import ToolError, UserError
from researcher.protocols import ExecRequest, ExecResult, Sandbox, Source, Tool, ToolResult
from researcher.types import SourceRef
from researcher_tools.decorator import tool
from researcher_tools.printed import legible, refusal, shown

SECONDS = 10.0
"""Compiling counts."""
MEMORY = 256 * 2**20
OUTPUT = 8_192

MAX_FILES = 16
"""Files a call may bring, and may keep."""
MAX_BYTES = 2**20
"""Of all files a call brings, its input too."""
MAX_SHOWN = 2_000
"""Characters shown of each kept file; the source holds all of it."""

INPUT = "stdin.txt"
"""The file that a program's standard input is read from."""

# A program is given to the sandbox such that its input is the file, and an error still names the program's own line.
_C = """
extern int open(const char *, int, ...);
extern int dup2(int, int);
__attribute__((constructor)) static void input_from_file_(void) { dup2(open("stdin.txt", 0), 0); }
"""
_MAIN = "main.py"
_PYTHON = f"""import os, sys
os.dup2(os.open({INPUT!r}, os.O_RDONLY), 0)
sys.stdin = open(0, encoding="utf-8", closefd=False)
exec(compile(open({_MAIN!r}, encoding="utf-8").read(), sys._getframe().f_code.co_filename, "exec"))
"""


def languages_of(sandbox: Sandbox) -> tuple[str, ...]:
    """The languages a sandbox says it runs; one that says nothing runs Python."""
    return tuple(getattr(sandbox, "languages", ("python",)))


def open_code(sandbox: Sandbox, *, seconds: float = SECONDS, memory: int = MEMORY) -> Tool:
    """A `code` tool for the languages of this sandbox. Raises UserError where that is Python alone."""
    languages = languages_of(sandbox)
    if languages == ("python",):
        raise UserError("The tool 'code' needs a sandbox of several languages; use --sandbox docker.")

    async def code(
        language: str,
        code: str,
        stdin: str = "",
        files: Annotated[dict[str, str], Field(description="Texts by file name.")] = {},  # noqa: B006
        keep: Annotated[list[str], Field(description="Names of files to keep.")] = [],  # noqa: B006
    ) -> ToolResult:
        """Run a program in an empty folder."""
        if language not in languages:
            raise ToolError(f"code: there is no language {language!r}; there are {', '.join(languages)}.")
        refused = refusal(code) or _refused(stdin, files, keep)
        if refused:
            raise ToolError(f"code: {refused}")
        request = _request(language, code, stdin, files, keep, seconds, memory)
        return _kept(await sandbox.run(request), keep)

    code.__annotations__["language"] = Literal[languages]
    return tool(code)


def _request(
    language: str, code: str, stdin: str, files: Mapping[str, str], keep: list[str], seconds: float, memory: int
) -> ExecRequest:
    given = {name: text.encode("utf-8") for name, text in files.items()}
    if stdin:
        given[INPUT] = stdin.encode("utf-8")
        if language == "python":
            given[_MAIN], code = code.encode("utf-8"), _PYTHON
        elif language == "bash":
            code = f"exec <{INPUT}; {code}"
        elif language == "c":
            code = f"{code}\n{_C}"
    return ExecRequest(code, language, seconds, memory, OUTPUT, files=given, keep=tuple(dict.fromkeys(keep)))


def _refused(stdin: str, files: Mapping[str, str], keep: list[str]) -> str:
    """What is wrong with the input or the files, for the model."""
    if len(files) > MAX_FILES or len(keep) > MAX_FILES:
        return f"at most {MAX_FILES} files can be given, and kept."
    if stdin and (taken := {INPUT, _MAIN} & {*files}):
        return f"with stdin, the file name {min(taken)} is taken; choose another."
    try:
        size = sum(len(text.encode("utf-8")) for text in (stdin, *files.values()))
        for name in (*files, *keep):
            name.encode("utf-8")
    except UnicodeEncodeError:
        return "the input or a file is not valid Unicode text."
    return "" if size <= MAX_BYTES else f"the input and the files have {size} bytes; at most {MAX_BYTES} can be given."


def _kept(result: ExecResult, keep: list[str]) -> ToolResult:
    """What the program printed and the files it left: shown in part, and stored as sources as they are."""
    parts, sources = [shown(result)], []
    for name in dict.fromkeys(keep):
        data = result.files.get(name)
        if data is None:
            continue
        text = _text(data)
        media = "application/octet-stream" if text is None else "text/plain"
        sources.append(Source(SourceRef(sha256=hashlib.sha256(data).hexdigest(), name=name, media_type=media), data))
        head = f"[file {legible(name)}, {len(data)} bytes]"
        if text is None:
            parts.append(f"{head} (no text)")
        else:
            cut = "" if len(text) <= MAX_SHOWN else f"\n[the first {MAX_SHOWN} of {len(text)} characters]"
            parts.append(f"{head}\n{legible(text[:MAX_SHOWN])}{cut}")
    parts += [f"[not kept: {legible(each)}]" for each in result.refused]
    return ToolResult("\n".join(parts), tuple(sources), origin="sandbox")


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


__all__ = ["languages_of", "open_code"]
