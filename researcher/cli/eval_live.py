"""The live table of an evaluation: accuracy and tokens of each strategy so far, drawn at a fixed rate."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from researcher.cli.output import Output
from researcher.evals.record import Result
from researcher.evals.table import amount
from researcher.intervals import over_problems
from researcher.types import VerdictStatus

FRAMES_PER_SECOND = 2.0
SECONDS_PER_LINE = 10.0
"""Without a terminal: a plain line this often."""


@dataclass(slots=True)
class Line:
    """One strategy at one budget so far."""

    runs: int = 0
    judged: dict[str, list[int]] = field(default_factory=dict)
    """By problem, 1 for each right run and 0 for each wrong one."""
    completion: int = 0
    seconds: float = 0.0
    broken: int = 0

    def add(self, result: Result) -> None:
        """Count a result in."""
        self.runs += 1
        if result.status is not VerdictStatus.UNVERIFIED:
            self.judged.setdefault(result.problem, []).append(int(result.status is VerdictStatus.CORRECT))
        self.completion += result.completion
        self.seconds += result.seconds
        self.broken += result.broken


class Board:
    """Counts results as they come, and shows them. A result costs it what one addition costs."""

    def __init__(self, known: Iterable[Result], total: int) -> None:
        self._lines: dict[tuple[str, int | None], Line] = {}
        self._total = total
        self._done = self._fresh = self._tokens = 0
        self._began = time.monotonic()
        for result in known:
            if not result.broken:
                self._count(result)

    def see(self, result: Result) -> None:
        """A run has ended."""
        self._count(result)
        self._fresh += 1
        self._tokens += result.completion

    def _count(self, result: Result) -> None:
        self._lines.setdefault((result.strategy, result.budget), Line()).add(result)
        self._done += 1

    async def watch(self, output: Output) -> None:
        """Show the table until cancelled."""
        if not output.err.is_terminal:
            while True:
                await anyio.sleep(SECONDS_PER_LINE)
                output.note(self.progress())
        with Live(console=output.err, auto_refresh=False, transient=True) as live:
            while True:
                live.update(Group(self.table(), Text(self.progress())), refresh=True)
                await anyio.sleep(1.0 / FRAMES_PER_SECOND)

    async def hear(
        self, stop: anyio.Event, output: Output, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """The first Ctrl-C lets the runs under way end, the second stops at once."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if stop.is_set():
                    raise KeyboardInterrupt
                output.note("finishing the runs under way; Ctrl-C again stops at once")
                stop.set()

    def progress(self) -> str:
        """`1,200 of 45,000 runs, 310 runs/min, 4,100 sampled tokens/s, 141 min left`."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = self._fresh / seconds
        left = "" if not self._fresh else f", {(self._total - self._done) / rate / 60:,.0f} min left"
        speed = f"{60 * rate:,.0f} runs/min, {self._tokens / seconds:,.0f} sampled tokens/s"
        return f"{self._done:,} of {self._total:,} runs, {speed}{left}"

    def table(self) -> Table:
        """What is known so far."""
        table = Table(box=None, pad_edge=False)
        for title in ("strategy", "budget", "runs", "accuracy", "95 % (Wilson)", "completion", "seconds", "broken"):
            table.add_column(title, justify="left" if title == "strategy" else "right")
        for (strategy, budget), line in self._lines.items():
            judged = [right for runs in line.judged.values() for right in runs]
            low, high = over_problems(list(line.judged.values()))
            table.add_row(
                strategy,
                amount(budget),
                f"{line.runs:,}",
                f"{statistics.fmean(judged):.3f}" if judged else "-",
                f"{low:.3f}-{high:.3f}" if judged else "-",
                f"{line.completion / line.runs:,.0f}",
                f"{line.seconds / line.runs:.2f}",
                f"{line.broken:,}" if line.broken else "",
            )
        return table
