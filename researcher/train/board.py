"""Metrics for TensorBoard, beside `metrics.jsonl`: `open_board(folder)` writes event files to `folder/tensorboard`."""

from __future__ import annotations

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


def open_board(folder: Path) -> Board:
    """The board of a stage's folder. Raises UserError where the library is missing."""
    try:
        from researcher.train.event_files import EventFiles
    except ModuleNotFoundError:
        raise UserError(
            "TensorBoard's files are written by tensorboardX, which is not installed: run pip install "
            "'researcher-orchestrator[train]', or set tensorboard = false."
        ) from None
    return EventFiles(folder / FOLDER)
