"""The live view of a run: a few lines on stderr, drawn from `run.stats()` at a fixed rate whatever the run does.

It reads a summary and never an event, so ten thousand threads cost it what one costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from researcher.cli.output import counted, safe
from researcher.engine.run import RunStats
from researcher.views import BudgetLeft

FRAMES_PER_SECOND = 4.0
SECONDS_PER_LINE = 5.0
"""Without a terminal: a plain line this often."""


class Screen:
    """What is drawn on the terminal, so that a question can have it for itself."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self.asking = False

    @contextmanager
    def drawing(self, live: Live) -> Iterator[None]:
        """While the live view is there."""
        self._live = live
        try:
            with nullcontext() if self.asking else live:
                yield
        finally:
            self._live = None
            live.stop()

    @contextmanager
    def question(self) -> Iterator[None]:
        """While a person is asked: the live view is taken away and comes back."""
        self.asking = True
        if self._live is not None:
            self._live.stop()
        try:
            yield
        finally:
            self.asking = False
            if self._live is not None:
                self._live.start()


async def watch(stats: Callable[[], RunStats], console: Console, screen: Screen | None = None) -> None:
    """Show the run until cancelled; nothing while somebody is being asked."""
    screen = screen or Screen()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    pause = SECONDS_PER_LINE if live is None else 1.0 / FRAMES_PER_SECOND
    with nullcontext() if live is None else screen.drawing(live):
        while True:
            await anyio.sleep(pause)
            if screen.asking:
                continue
            lines = summary(stats())
            if live is None:
                console.print(" | ".join(lines))
            else:
                live.update(Text("\n".join(lines), overflow="ellipsis", no_wrap=True), refresh=True)


def summary(stats: RunStats) -> list[str]:
    """What the run is doing: threads by state; tokens, speed and what is left; the leading answers."""
    lines = [f"{stats.seconds:.0f} s, {counted(stats.threads)}"]
    used = f"{stats.usage.tokens:,} tokens ({stats.tokens_per_second:,.0f} sampled/s), {stats.usage.calls:,} calls"
    if left := budget_left(stats.budget):
        used += f"; left: {left}"
    lines.append(used)
    if stats.leading:
        lines.append("leading: " + ", ".join(f"{safe(text)[:60]} ({votes})" for text, votes in stats.leading))
    return lines


def budget_left(left: BudgetLeft) -> str:
    """`4,000 tokens, 20 s`; limits that are not set are not there."""
    parts = [
        f"{left.tokens:,.0f} tokens" if left.tokens is not None else "",
        f"{left.sampled:,.0f} sampled tokens" if left.sampled is not None else "",
        f"{left.calls:,.0f} calls" if left.calls is not None else "",
        f"{left.seconds:,.0f} s" if left.seconds is not None else "",
        f"${left.cost:.4f}" if left.cost is not None else "",
    ]
    return ", ".join(part for part in parts if part)
