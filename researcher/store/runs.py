"""The runs of a home folder: `new_run_id()`, `run_path(home, run)`, `list_runs(home)`."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import NamedTuple

from researcher.errors import ResearcherError, UserError
from researcher.events import AnswerAccepted, RunFinished, RunStarted
from researcher.store.reader import RunReader


class RunSummary(NamedTuple):
    """A run in a list. `outcome` is an Outcome, "open" or "unreadable"; then `problem` says why.

    `started` and `last` are Unix times of the first and the last event; 0 where there is none.
    """

    id: str
    question: str
    strategy: str
    model: str
    outcome: str
    started: float
    last: float
    events: int
    problem: str = ""
    answer: str | None = None


def new_run_id(now: float | None = None) -> str:
    """A short name that sorts by day and time and is not taken: `20261120-124501-1a2b3c`, in UTC."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"


def run_path(home: Path, run: str) -> Path:
    """The file of a run. Raises UserError for a name that is not one."""
    if not run or not all(char.isalnum() or char in "-_." for char in run) or run.startswith("."):
        raise UserError(f"{run!r} is not the name of a run; `researcher ls` lists the runs there are")
    return Path(home) / "runs" / f"{run}.db"


def list_runs(home: Path) -> list[RunSummary]:
    """All runs, the oldest first. One that cannot be read is listed as such and hides no other."""
    return [summary(path) for path in sorted((Path(home) / "runs").glob("*.db"))]


def summary(path: Path) -> RunSummary:
    """What a list shows of a run: its first event and its last."""
    try:
        with RunReader(path) as reader:
            return _summary(reader)
    except ResearcherError as error:
        return RunSummary(path.stem, "", "", "", "unreadable", 0.0, 0.0, 0, str(error))


def _summary(reader: RunReader) -> RunSummary:
    head = reader.head()
    if head == 0:
        return RunSummary(reader.run, "", "", "", "open", 0.0, 0.0, 0, "the run has no events")
    first, last = reader.event(1), reader.event(head)
    started = first.body if isinstance(first.body, RunStarted) else None
    outcome, answer = "open", None
    if isinstance(last.body, RunFinished):
        outcome, answer = str(last.body.outcome), last.body.answer
    elif isinstance(last.body, AnswerAccepted):
        answer = last.body.answer
    return RunSummary(
        id=reader.run,
        question=started.task.question if started else "",
        strategy=started.strategy if started else "",
        model=started.model if started else "",
        outcome=outcome,
        started=first.at,
        last=last.at,
        events=head,
        answer=answer.text if answer else None,
    )
