"""The jobs of `unit_tests`: the tests with stand-ins for the answer's functions, and one call of the answer's code."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from researcher.protocols import ExecResult
from researcher.types import Task
from researcher_tools.verifiers.plain import read_plain, write_plain

# The stand-ins. `{mark}` is random: no text that the tests print is taken for a word of the harness.
_TESTING = """
_known = {known}
_used = set()
_errors = {{{errors}}}
def _ask(name, args, kwargs):
    key = repr((name, args, kwargs))
    if key not in _known:
        print("\\n{mark} ask " + str(len(_used)) + " " + key)
        raise RuntimeError("asked")
    _used.add(key)
    kind, said = _known[key]
    if kind == "raise":
        raise _errors[said[0]](said[1])
    value, args_after, kwargs_after = eval(said)
    for given, after in list(zip(args, args_after)) + [(kwargs[name], kwargs_after[name]) for name in kwargs]:
        if type(given) is list:
            given[:] = after
        elif type(given) is dict or type(given) is set:
            given.clear()
            given.update(after)
    return value
{names}
{tests}

print("\\n{mark} passed")
"""
_NAME = """
def {name}(*args, **kwargs):
    return _ask("{name}", args, kwargs)
"""
_CALLING = """{code}

_args, _kwargs = {args}, {kwargs}
try:
    _made = {name}(*_args, **_kwargs)
    _shown = "ok " + repr((_made, _args, _kwargs))
except Exception as _error:
    _shown = "raise " + repr((type(_error).__name__, str(_error)))
print("\\n{mark} " + _shown)
"""
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "ArithmeticError AssertionError AttributeError Exception IndexError KeyError LookupError NameError "
        "NotImplementedError OSError OverflowError RecursionError RuntimeError StopIteration TypeError ValueError "
        "ZeroDivisionError",
    )
)
"""Exceptions that every sandbox has; others are raised in the tests as `Exception`."""


Known = Mapping[str, "Said"]
"""What the answer's code came to, by call."""


class Said(NamedTuple):
    """What one call came to: `ok` with the source of (value, arguments after, keywords after), or `raise` with a name
    and a text."""

    kind: str
    what: Any


class Unable(Exception):
    """The answer's code or the tests cannot be run here."""


class Tests:
    """The tests of a task. Raises ValueError that says why they cannot be used."""

    def __init__(self, task: Task) -> None:
        given = task.data.get("tests")
        parts = [given] if isinstance(given, str) else given
        if not (isinstance(parts, (list, tuple)) and parts and all(isinstance(part, str) for part in parts)):
            raise ValueError("the task has no tests")
        entry = task.data.get("entry_point")
        if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
            raise ValueError("the task's entry point is no name")
        self._text = "\n".join(parts)
        tree = _parsed(self._text)
        if entry is not None and any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
            self._text += f"\ncheck({entry})"
            tree = _parsed(self._text)
        self._names = sorted(wanted(tree) | ({entry} if entry is not None else set()))
        if not self._names:
            raise ValueError("the tests call nothing of the answer")

    def script(self, known: Known, mark: str) -> str:
        """The job that tests, with what is known of the answer's code."""
        return _TESTING.format(
            known=write_plain({key: (said.kind, said.what) for key, said in known.items()}),
            errors=", ".join(f"{name!r}: {name}" for name in sorted(_COMMON)),
            names="".join(_NAME.format(name=name) for name in self._names),
            tests=self._text,
            mark=mark,
        )

    def call(self, code: str, asked: str, mark: str) -> str:
        """The job that makes one call of the answer's code."""
        try:
            name, args, kwargs = read_plain(asked)
        except ValueError as error:
            raise Unable(f"the tests pass what is no plain data: {asked[:80]}") from error
        assert name in self._names
        return _CALLING.format(code=code, name=name, args=write_plain(args), kwargs=write_plain(kwargs), mark=mark)


def wanted(tree: ast.Module) -> set[str]:
    """The names that tests use and neither bind nor have as built-ins: the answer's functions.

    Raises ValueError for one that is not used like a function.
    """
    bound = {*dir(builtins)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.arg(arg=name) | ast.ExceptHandler(name=str() as name):
                bound.add(name)
            case ast.alias(name=name, asname=asname):
                bound.add(asname or name.partition(".")[0])
    free = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - bound
    called: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            values = (node.func, *node.args, *(keyword.value for keyword in node.keywords))
            called.update(id(value) for value in values)
        elif isinstance(node, ast.Assign):
            called.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in free and id(node) not in called:
            raise ValueError(f"the tests use {node.id} as something other than a function")
    return free


def lacking(error: str) -> str:
    """What the sandbox lacks that Python has, if that is what the error says; else nothing."""
    if "use --sandbox" in error or "Internal error" in error or "No module named" in error:
        return error
    if (match := re.search(r"NameError: name '(\w+)' is not defined", error)) and hasattr(builtins, match.group(1)):
        return error
    match = re.search(r"AttributeError: (?:type object |module )?'(\w+)' (?:object )?has no attribute '(\w+)'", error)
    if match is not None:
        owner, attribute = match.groups()
        known = sys.modules.get(owner) if "module '" in error else getattr(builtins, owner, None)
        if known is not None and hasattr(known, attribute):
            return error
    return ""


def outcome(result: ExecResult, mark: str) -> Said | str:
    """What a call came to, or why the code fails. Raises Unable."""
    lack = lacking(result.error) or (result.status if result.status in ("killed", "unsupported") else "")
    if lack:
        raise Unable(f"the sandbox cannot run the code: {lack}")
    if (shown := line_after(result, f"{mark} ok ")) is not None:
        return Said("ok", write_plain(_plain(shown, 3)))
    if (shown := line_after(result, f"{mark} raise ")) is not None:
        name, text = _plain(shown, 2)
        if lack := lacking(f"{name}: {text}"):
            raise Unable(f"the sandbox cannot run the code: {lack}")
        return Said("raise", (name if name in _COMMON else "Exception", str(text)))
    if result.status == "ok":
        return "the code ended early"
    return f"{result.status}: {result.error[:200]}"


def _plain(shown: str, length: int) -> tuple[Any, ...]:
    try:
        found = read_plain(shown)
    except ValueError as error:
        raise Unable(f"the code returns what is no plain data: {shown[:80]}") from error
    if not isinstance(found, tuple) or len(found) != length:
        raise Unable("the code's result cannot be read")
    return found


def line_after(result: ExecResult, head: str) -> str | None:
    """The first line with this head, without it. First: what comes after is not the harness's, or came too late."""
    for line in result.stdout.splitlines():
        if line.startswith(head):
            return line.removeprefix(head)
    return None


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the tests are not Python: {error}") from error
