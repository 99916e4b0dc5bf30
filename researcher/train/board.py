"""Metrics for TensorBoard, beside `metrics.jsonl`: `open_board(folder)` writes event files to `folder/tensorboard`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from researcher.errors import UserError

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
    """A Board of event files, by tensorboardX."""

    def __init__(self, folder: Path, writer: Any) -> None:
        self._folder, self._make = folder, writer
        self._writer: Any = None

    def resume(self, done: int) -> None:
        """Readers of TensorBoard drop the points from `purge_step` on that older files have."""
        self.close()
        if not done:
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
        self._open(done + 1 if done else None)

    def add(self, step: int, record: Mapping[str, Any]) -> None:
        """One scalar for each number; text and what is not finite has no place on a chart."""
        if self._writer is None:
            self._open(None)
        for name, value in record.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; the next record begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, purge: int | None) -> None:
        self._writer = self._make(str(self._folder), purge_step=purge)


def open_board(folder: Path) -> Board:
    """The board of a stage's folder. Raises UserError where the library is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise UserError(
            "TensorBoard's files are written by tensorboardX, which is not installed: run pip install "
            "'researcher-orchestrator[train]', or set tensorboard = false."
        ) from None
    return EventFiles(folder / FOLDER, SummaryWriter)
