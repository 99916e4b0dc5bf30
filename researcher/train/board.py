"""Metrics for TensorBoard, beside `metrics.jsonl`: `open_board(folder)` writes event files to `folder/tensorboard`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from researcher.errors import UserError

try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
except ModuleNotFoundError:
    EventsWriter = None

FOLDER = "tensorboard"


class Board(Protocol):
    """Where scalars go."""

    def resume(self, done: int) -> None:
        """Begin a new file, which says that what others have after step `done` does not count; with none done, the
        files of before are removed."""
        ...

    def add(self, step: int, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record, at once on disk."""
        ...

    def close(self) -> None: ...


class EventFiles:
    """A Board of event files. They are written with tensorboardX's parts and not with its SummaryWriter, whose queue
    may lose the last points of a process that is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def resume(self, done: int) -> None:
        """Readers of TensorBoard drop the points that older files have from a session's first step on."""
        self.close()
        if not done:
            for old in self._files():
                old.unlink()
        self._open()
        if done:
            self._write(step=done + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, record: Mapping[str, Any]) -> None:
        """One scalar for each number; text and what is not finite has no place on a chart."""
        if self._writer is None:
            self._open()
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in numbers.items() if math.isfinite(value)
        ]
        self._write(step=step, summary=Summary(value=values))

    def close(self) -> None:
        """Close the file; the next record begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # The names of the files have whole seconds: two of one second would be one file.
        self._writer = EventsWriter(str(self._folder / "events"), f".{len(self._files()):04d}")

    def _write(self, **what: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **what))
        self._writer.flush()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("events.out.tfevents.*"))


def open_board(folder: Path) -> Board:
    """The board of a stage's folder. Raises UserError where the library is missing."""
    if EventsWriter is None:
        raise UserError(
            "TensorBoard's files are written by tensorboardX, which is not installed: run pip install "
            "'researcher-orchestrator[train]', or set tensorboard = false."
        )
    return EventFiles(folder / FOLDER)
