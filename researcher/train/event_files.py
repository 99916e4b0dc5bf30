"""TensorBoard's event files, written one record at a time: a Board on disk."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

_EVENTS: Any = event_pb2  # what protobuf makes when it is imported, no type checker sees
_SUMMARIES: Any = summary_pb2


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
            self._write(_EVENTS.Event(step=done + 1, session_log=_EVENTS.SessionLog(status=_EVENTS.SessionLog.START)))

    def add(self, step: int, record: Mapping[str, Any]) -> None:
        """One scalar for each number; text and what is not finite has no place on a chart."""
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        values = [
            _SUMMARIES.Summary.Value(tag=name, simple_value=value)
            for name, value in numbers.items()
            if math.isfinite(value)
        ]
        self._write(_EVENTS.Event(step=step, summary=_SUMMARIES.Summary(value=values)))

    def _begin(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        # By the second, as readers expect; two of one second are told apart by their numbers.
        self._file = self._folder / f"events.out.tfevents.{time.time():010.0f}.{len(self._files()):04d}"
        self._write(_EVENTS.Event(file_version="brain.Event:2"))
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
