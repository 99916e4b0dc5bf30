"""Metrics as JSON lines, each iteration once however often the process was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from researcher.train.board import Board
from researcher.train.files import write_text


class Journal:
    """A file of lines with the number of their iteration. A line is added before the checkpoint that it belongs to.

    `board`: where the numbers are drawn, too.
    """

    def __init__(self, path: Path, board: Board | None = None) -> None:
        self._path, self._board = path, board

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines; a kill may have cut the last one."""
        text = self._path.read_text("utf-8") if self._path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def resume(self, done: int) -> list[dict[str, Any]]:
        """The lines of iterations that a checkpoint holds; others are dropped. With none done, all are."""
        kept = [line for line in self.lines() if line["iteration"] <= done] if done else []
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        if self._board is not None:
            self._board.resume(done)
        return kept

    def add(self, iteration: int, record: Mapping[str, Any]) -> None:
        """Add a line."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **record}) + "\n")
        if self._board is not None:
            self._board.add(iteration, record)
