"""Metrics as TensorBoard's event files: what a reader sees, also after a kill."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from researcher.errors import UserError
from researcher.train.board import FOLDER, open_board
from researcher.train.journal import Journal


def events(file: Path) -> list[Any]:
    """The records of an event file: each is its length, a checksum of that, the event, a checksum of the event."""
    data, at, found = file.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        for start, end in ((at, at + 8), (at + 12, at + 12 + length)):
            assert struct.unpack_from("<I", data, end) == (masked_crc32c(data[start:end]),)
        found.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return found


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points as TensorBoard draws them: a session's start takes away what older files have from its step on."""
    drawn: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.iterdir()):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                drawn = {name: [p for p in each if p[0] < event.step] for name, each in drawn.items()}
            for value in event.summary.value:
                drawn.setdefault(value.tag, []).append((event.step, round(value.simple_value, 4)))
    return drawn


def journal(folder: Path) -> Journal:
    return Journal(folder / "metrics.jsonl", open_board(folder))


def test_each_iteration_is_drawn_once_however_often_it_was_killed(tmp_path: Path) -> None:
    first = journal(tmp_path)
    first.resume(0)
    for step in range(5):
        first.add(step, {"reward": step / 10, "findings": ["entropy collapse"], "canary": float("inf")})
    second = journal(tmp_path)
    assert [line["iteration"] for line in second.resume(2)] == [0, 1, 2]
    second.add(3, {"reward": 0.75})
    assert points(tmp_path / FOLDER) == {"reward": [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.75)]}
    assert [line["iteration"] for line in second.lines()] == [0, 1, 2, 3]


def test_one_that_begins_anew_has_no_points_of_before(tmp_path: Path) -> None:
    first = journal(tmp_path)
    first.add(1, {"reward": 1.0})
    again = journal(tmp_path)
    again.resume(0)
    again.add(1, {"reward": 0.5})
    assert points(tmp_path / FOLDER) == {"reward": [(1, 0.5)]}


def test_without_the_library_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "researcher.train.event_files", None)
    with pytest.raises(UserError, match=r"pip install 'researcher-orchestrator\[train\]', or set tensorboard = false"):
        open_board(tmp_path)
