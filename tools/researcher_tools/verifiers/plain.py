"""Plain Python values as text and back: None, booleans, numbers, strings, bytes, and containers of them.

What comes out of a sandbox is read with a grammar and never evaluated. Unlike `ast.literal_eval` this knows infinity,
not-a-number and empty sets, and gives up on what is nested too deeply.
"""

from __future__ import annotations

import ast
import math
from typing import Any

DEPTH = 40


def read_plain(text: str) -> Any:
    """The value that a `repr` shows. Raises ValueError for anything else."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, DEPTH)
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:  # TypeError: a list as a key
        raise ValueError(f"no plain data: {text[:60]}") from error


def write_plain(value: Any) -> str:
    """Python source that makes the value anew."""
    match value:
        case float() if not math.isfinite(value):
            return f"float({str(value)!r})"
        case dict():
            return "{" + ", ".join(f"{write_plain(k)}: {write_plain(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(write_plain, value)) + "]"
        case tuple():
            return "(" + "".join(f"{write_plain(item)}, " for item in value) + ")"
        case set() | frozenset():
            return f"{type(value).__name__}([{', '.join(map(write_plain, value))}])"
    return repr(value)


def _value(node: ast.expr, depth: int) -> Any:
    if depth == 0:
        raise ValueError(f"nested more than {DEPTH} deep")
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() | bytes() as value):
            return value
        case ast.Name(id="nan" | "inf" as name):
            return float(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(_value(operand, depth - 1))
        case ast.List(elts=items):
            return [_value(item, depth - 1) for item in items]
        case ast.Tuple(elts=items):
            return tuple([_value(item, depth - 1) for item in items])
        case ast.Set(elts=items):
            return {_value(item, depth - 1) for item in items}
        case ast.Dict(keys=keys, values=values):
            return {_key(key, depth): _value(value, depth - 1) for key, value in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id="set" | "frozenset" as name), args=items, keywords=[]) if len(items) <= 1:
            made = [_value(item, depth - 1) for item in items]
            return (set if name == "set" else frozenset)(*made)
    raise ValueError("no plain data")


def _key(node: ast.expr | None, depth: int) -> Any:
    if node is None:
        raise ValueError("no plain data")
    return _value(node, depth - 1)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no plain data")
    return value
