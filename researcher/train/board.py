"""Metrics for TensorBoard, beside `metrics.jsonl`: `open_board(folder)` writes event files to `folder/tensorboard`."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from researcher.errors import UserError

try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
except ModuleNotFoundError:
    Event = None

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


class EventFiles:
    """A Board of event files. They are framed here and not by tensorboardX's SummaryWriter, whose queue loses the last
    points of a process that is killed; none is held open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Path | None = None

    def resume(self, done: int) -> None:
        """Readers of TensorBoard drop the points that older files have from a session's first step on."""
        if not done:
            for old in self._files():
                old.unlink()
        self._begin()
        if done:
            self._write(Event(step=done + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, record: Mapping[str, Any]) -> None:
        """One scalar for each number; text and what is not finite has no place on a chart."""
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in numbers.items() if math.isfinite(value)
        ]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _begin(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        # By the second, as readers expect; two of one second are told apart by their numbers.
        self._file = self._folder / f"events.out.tfevents.{time.time():010.0f}.{len(self._files()):04d}"
        self._write(Event(file_version="brain.Event:2"))
        return self._file

    def _write(self, event: Any) -> None:
        """Append a record of TFRecord's framing: length, its checksum, data, its checksum."""
        file = self._file or self._begin()
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        with open(file, "ab") as out:
            out.write(length + _checksum(length) + data + _checksum(data))

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("events.out.tfevents.*"))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def open_board(folder: Path) -> Board:
    """The board of a stage's folder. Raises UserError where the library is missing."""
    if Event is None:
        raise UserError(
            "TensorBoard's files are written by tensorboardX, which is not installed: run pip install "
            "'researcher-orchestrator[train]', or set tensorboard = false."
        )
    return EventFiles(folder / FOLDER)
