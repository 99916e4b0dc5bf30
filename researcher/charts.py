"""Charts as SVG, written by hand: `chart(series, ...)` gives a figure against another with its 95 % intervals.

No plotting library: an SVG of lines is a page of code, the same results give the same bytes, which a diff can show, and
nobody has to install one to read a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 920.0, 520.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 230.0, 44.0, 56.0
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333", "#882255")
"""Okabe and Ito's, which people of all colour visions tell apart, and one of Tol's for yellow, which fades on white."""
DASHES = ("", "6 3", "2 3")
"""After all colours are used, the next lines are dashed."""


class Spot(NamedTuple):
    """A measured point with its 95 % interval."""

    x: float
    y: float
    low: float
    high: float


class Series(NamedTuple):
    """A named line."""

    name: str
    spots: Sequence[Spot]


Across = Literal["log", "linear"]


class _Axes(NamedTuple):
    """The ranges shown."""

    x0: float
    x1: float
    y0: float
    y1: float
    across: Across = "log"

    def x(self, value: float) -> float:
        if self.across == "log":
            share = math.log(value / self.x0) / math.log(self.x1 / self.x0)
        else:
            share = (value - self.x0) / (self.x1 - self.x0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def chart(
    series: Iterable[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    across: Across = "log",
    names: Sequence[str] = (),
) -> str:
    """The SVG of these lines. Over a logarithmic x, spots with x <= 0 cannot be shown and are left out.

    `names` are categories: spots stand at 0, 1, ..., each series a little beside the others, and no line joins them.
    y goes from 0 to 1 where all values do, else as far as the values.
    """
    log = across == "log" and not names
    shown = [Series(each.name, [spot for spot in each.spots if spot.x > 0 or not log]) for each in series]
    shown = [each for each in shown if each.spots]
    axes = _axes([spot for each in shown for spot in each.spots], log=log)
    if names:
        axes = axes._replace(x0=-0.6, x1=len(names) - 0.4)
        shown = [_aside(each, (number - (len(shown) - 1) / 2) * 0.14) for number, each in enumerate(shown)]
    parts = [*_frame(axes, title, x_label, y_label, names)]
    for number, each in enumerate(shown):
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        parts += _line(axes, each, COLOURS[number % len(COLOURS)], dash, joined=not names)
    parts += _legend(axes, shown)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" font-family="sans-serif">'
    return "\n".join([head, *parts, "</svg>", ""])


def _aside(series: Series, by: float) -> Series:
    return Series(series.name, [spot._replace(x=spot.x + by) for spot in series.spots])


def _axes(spots: Sequence[Spot], *, log: bool) -> _Axes:
    across: Across = "log" if log else "linear"
    if not spots:
        return _Axes(1.0, 10.0, 0.0, 1.0, across)
    x0, x1 = min(spot.x for spot in spots), max(spot.x for spot in spots)
    low, high = min(spot.low for spot in spots), max(spot.high for spot in spots)
    if low < 0.0 or high > 1.0:
        margin = 0.04 * (high - low)
        y0, y1 = (0.0 if 0.0 <= low <= high / 2 else low - margin), high + margin
    else:
        y0, y1 = max(0.0, math.floor(low * 10 - 0.2) / 10), min(1.0, math.ceil(high * 10 + 0.2) / 10)
        y1 = max(y1, y0 + 0.1)
    if log:
        return _Axes(x0 / 1.25, x1 * 1.25, y0, y1, across)
    beside = 0.03 * (x1 - x0) or 1.0
    return _Axes(x0 - beside, x1 + beside, y0, y1, across)


def _frame(axes: _Axes, title: str, x_label: str, y_label: str, names: Sequence[str]) -> Iterable[str]:
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<rect width="{WIDTH:.0f}" height="{HEIGHT:.0f}" fill="#ffffff"/>'
    yield _text(LEFT, 24, title, size=15)
    yield _text(middle, HEIGHT - 14, x_label, anchor="middle")
    across = (TOP + HEIGHT - BOTTOM) / 2
    yield _text(16, across, y_label, anchor="middle", more=f' transform="rotate(-90 16 {across:.1f})"')
    for value in _decimals(axes.y0, axes.y1) if axes.y1 - axes.y0 <= 1.0 else _evens(axes.y0, axes.y1):
        y = axes.y(value)
        yield f'<path d="M{LEFT:.1f} {y:.1f}H{WIDTH - RIGHT:.1f}" stroke="#e0e0e0"/>'
        yield _text(LEFT - 8, y + 4, f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}", anchor="end")
    for value, label in _marks(axes, names):
        x = axes.x(value)
        yield f'<path d="M{x:.1f} {TOP:.1f}V{HEIGHT - BOTTOM:.1f}" stroke="#f0f0f0"/>'
        yield _text(x, HEIGHT - BOTTOM + 18, label, anchor="middle")
    yield f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#333333"/>'


def _marks(axes: _Axes, names: Sequence[str]) -> list[tuple[float, str]]:
    """Where x is marked, and with what."""
    if names:
        return [(float(place), name) for place, name in enumerate(names)]
    if axes.across == "log":
        return [(value, f"{value:,.0f}") for value in _rounds(axes.x0, axes.x1)]
    return [(value, f"{value:,.10g}") for value in _evens(axes.x0, axes.x1)]


def _line(axes: _Axes, series: Series, colour: str, dash: str, *, joined: bool) -> Iterable[str]:
    spots = sorted(series.spots)
    path = "L".join(f"{axes.x(spot.x):.1f} {axes.y(spot.y):.1f}" for spot in spots)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    yield f"<g><title>{escape(series.name)}</title>"
    if joined:
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>'
    for spot in spots:
        x = axes.x(spot.x)
        low, high = axes.y(max(spot.low, axes.y0)), axes.y(min(spot.high, axes.y1))
        bar = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"
        yield f'<path d="{bar}" stroke="{colour}" stroke-opacity="0.55" fill="none"/>'
        yield f'<circle cx="{x:.1f}" cy="{axes.y(spot.y):.1f}" r="3" fill="{colour}"/>'
    yield "</g>"


def _legend(axes: _Axes, shown: Sequence[Series]) -> Iterable[str]:
    """The names at the right, in the order of the lines' ends, so that the eye can follow."""
    ends = sorted(enumerate(shown), key=lambda item: -max(item[1].spots).y)
    for place, (number, series) in enumerate(ends):
        y = TOP + 12 + 22 * place
        x = WIDTH - RIGHT + 16
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        yield f'<path d="M{x:.1f} {y - 4:.1f}h26" stroke="{colour}" stroke-width="2.4"{dashed}/>'
        yield _text(x + 34, y, series.name)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222222"{more}>'
        f"{escape(text)}</text>"
    )


def _decimals(low: float, high: float) -> list[float]:
    step = 0.1 if high - low > 0.35 else 0.05 if high - low > 0.15 else 0.02
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _evens(low: float, high: float) -> list[float]:
    """From four to ten multiples of 1, 2 or 5 times a power of ten in this range."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = max(m for m in (1, 2, 5) if m * power <= (high - low) / 4) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _rounds(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in this range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for power in powers for m in (1, 2, 5) if low <= (value := m * 10.0**power) <= high]
