"""`canonical(answer)` gives equal strings for answers that say the same. Pure, and never raises.

Numbers are compared exactly ("1,234.50" and "1234.5", "1/2" and "0.5"), sums and products up to the order of their
terms ("(3+5)*8" and "8*(5+3)"), everything else as text without case, spacing, quotes, articles and a full stop.
"""

from __future__ import annotations

import ast
import hashlib
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

LENGTH = 2_000
"""Characters above which an answer is known by its beginning and a hash."""

_EXPRESSION = 200
"""Characters of the longest expression that is read as one."""

_PLAIN = str.maketrans(
    {**dict.fromkeys("‘’‚‛′`", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-")}
    | {"×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "\u00a0": " "}
)
_LATEX = (
    (re.compile(r"^\\boxed\s*\{(.*)\}$", re.DOTALL), r"\1"),
    (re.compile(r"^\\(?:text|mathrm|mathbf)\s*\{(.*)\}$", re.DOTALL), r"\1"),
    (re.compile(r"^\\\((.*)\\\)$|^\$\$?([^$]*)\$\$?$", re.DOTALL), r"\1\2"),
    (re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "*"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\\([$%])"), r"\1"),
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*\$?\s*(?:(?P<whole>\d+)\s+(?=\d+/))?"
    rf"(?P<digits>{_DIGITS}?(?:\.\d*)?)(?:e(?P<exponent>[-+]?\d{{1,2}}))?(?:\s*/\s*(?P<under>{_DIGITS}))?\s*%?\.?"
)
_ARITHMETIC = re.compile(r"[\d\s()+\-*/]*\d[\d\s()+\-*/]*")
_TIMES = re.compile(r"(?<=[\d)])\s*x\s*(?=[\d(])")
_ASSIGNED = re.compile(r"^[a-z]\s*=\s*(?=\S)")
_CHOICE = re.compile(r"\(?([a-z])\)")
_ARTICLE = re.compile(r"^(?:the|an?)\s+(?=\S)")


def canonical(answer: str) -> str:
    """The class an answer votes for. `canonical(canonical(x)) == canonical(x)`.

    "$" and "%" are dropped: whoever asks for dollars or percents gets both "50%" and "50", meaning the same.
    """
    text = canonical_text(answer)
    unwrapped = text
    for pattern, plain in _LATEX:
        unwrapped = pattern.sub(plain, unwrapped)
    if unwrapped != text:
        return canonical(unwrapped)
    return _number(text) or _arithmetic(text) or text


def canonical_text(text: str) -> str:
    """Text without what does not change its meaning: case, spacing, typography, quotes, article, final stop."""
    text = unicodedata.normalize("NFC", text).translate(_PLAIN)
    while (shorter := _strip(text)) != text:
        text = shorter
    if len(text) > LENGTH:
        return f"{text[:80].strip()}#{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"
    return text


def _strip(text: str) -> str:
    text = unicodedata.normalize("NFC", " ".join(text.casefold().split()))
    if choice := _CHOICE.fullmatch(text):
        return choice[1]
    for mark in ('"', "'", "**", "*", "_"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            inner = text[len(mark) : -len(mark)]
            if mark not in inner:
                text = inner
    if len(text) > 1:
        text = text.rstrip(".,;:!?") or text
    return _ARTICLE.sub("", text)


def _number(text: str) -> str | None:
    """The number, exactly: as a decimal where it ends, as a reduced fraction where not."""
    text = _ASSIGNED.sub("", text)
    match = _NUMBER.fullmatch(text) if len(text) <= _EXPRESSION else None
    if match is None or not any(char.isdecimal() for char in match["digits"]):
        return None
    exponent = int(match["exponent"] or 0)
    try:
        value = Fraction(match["digits"].replace(",", "").rstrip(".")) * Fraction(10) ** exponent
        value /= int((match["under"] or "1").replace(",", ""))
        value += int(match["whole"] or 0)
    except (ValueError, ZeroDivisionError):
        return None
    return _decimal(-value if match["sign"] == "-" else value)


def _decimal(value: Fraction) -> str:
    twos = fives = 0
    rest = value.denominator
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


class _Term(NamedTuple):
    """An expression: how it reads, its value, and how tightly it binds (1 a sum, 2 a product, 3 a number)."""

    text: str
    value: Fraction
    binds: int


def _arithmetic(text: str) -> str | None:
    """A sum or product of integers with its terms in order; None for anything else.

    "(3+5)*8 = 64" is its left side, if that is true.
    """
    text = _TIMES.sub("*", text)
    left, equals, right = text.partition("=")
    if len(left) > _EXPRESSION or not _ARITHMETIC.fullmatch(left):
        return None
    try:
        term = _read(ast.parse(left.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    if equals and _number(right.strip()) != _decimal(term.value):
        return None
    # "(1/2)" is a number in brackets, not a calculation.
    return _number(term.text) or term.text


def _read(node: ast.expr) -> _Term:
    match node:
        case ast.Constant(value=int(value)):
            return _Term(str(value), Fraction(value), 3)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _read(operand)
        case ast.UnaryOp(op=ast.USub()) | ast.BinOp(op=ast.Add() | ast.Sub()):
            return _sum(node)
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            return _product(node)
        case _:
            raise ValueError("not a sum or product of integers")


def _sum(node: ast.expr) -> _Term:
    plus: list[_Term] = []
    minus: list[_Term] = []
    _addends(node, plus, minus)
    texts = sorted(term.text for term in plus), sorted(term.text for term in minus)
    text = "+".join(texts[0]) + "".join(f"-{term}" for term in texts[1])
    return _Term(text, sum((t.value for t in plus), Fraction(0)) - sum((t.value for t in minus), Fraction(0)), 1)


def _addends(node: ast.expr, plus: list[_Term], minus: list[_Term]) -> None:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            _addends(left, plus, minus)
            _addends(right, plus, minus)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            _addends(left, plus, minus)
            _addends(right, minus, plus)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _addends(operand, minus, plus)
        case _:
            plus.append(_read(node))


def _product(node: ast.expr) -> _Term:
    over: list[_Term] = []
    under: list[_Term] = []
    _factors(node, over, under)
    texts = [sorted(f"({t.text})" if t.binds == 1 else t.text for t in terms) for terms in (over, under)]
    value = Fraction(1)
    for term in over:
        value *= term.value
    for term in under:
        value /= term.value
    return _Term("*".join(texts[0]) + "".join(f"/{term}" for term in texts[1]), value, 2)


def _factors(node: ast.expr, over: list[_Term], under: list[_Term]) -> None:
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            _factors(left, over, under)
            _factors(right, over, under)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            _factors(left, over, under)
            _factors(right, under, over)
        case _:
            over.append(_read(node))
