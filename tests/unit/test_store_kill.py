"""SIGKILL at seeded points of the write path, again and again on one run: what was acknowledged is there."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import struct
from pathlib import Path

import anyio
import pytest

from researcher.events import RunSteered
from researcher.store import RunReader, RunStore

KILLS = 40


def killer(commits: int, where: str) -> type[sqlite3.Connection]:
    """A connection that kills its process at a commit: before it, after it, or in the middle of a batch's rows."""

    class Killer(sqlite3.Connection):
        left = commits

        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            cursor = super().execute(statement, *values)  # type: ignore[arg-type]
            if where == "rows" and statement.startswith("INSERT") and Killer.left <= 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return cursor

        def commit(self) -> None:
            Killer.left -= 1
            if where == "before" and Killer.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            super().commit()
            if where == "after" and Killer.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return Killer


def write_until_killed(path: Path, seed: int, pipe: int) -> None:
    """Append batches, and tell the parent each number once it is acknowledged."""
    rng = random.Random(seed)
    factory = killer(rng.randint(2, 6), rng.choice(("before", "after", "rows")))

    async def work() -> None:
        store = RunStore.open(path, factory=factory, linger=0)
        while True:
            for _ in range(rng.randint(1, 40)):
                seq = store.append("a", RunSteered(action="x" * rng.randint(0, 3000))).seq
            store.put_blob(rng.randbytes(rng.randint(1, 5000)))
            await store.durable(seq)
            os.write(pipe, struct.pack("<q", seq))

    anyio.run(work)


@pytest.mark.slow
def test_no_acknowledged_event_is_lost_to_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    RunStore.create(path).close()
    head, points = 0, 0
    for seed in range(KILLS):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_until_killed(path, seed, write_end)
            finally:
                os._exit(1)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child was to be killed, and ended otherwise"
        acknowledged = struct.unpack(f"<{len(told) // 8}q", told)
        with RunReader(path) as reader:
            reader.verify(blobs=True)
            found = reader.head()
        assert found >= max(acknowledged, default=head) >= head
        points += len(acknowledged)
        head = found
    assert points > KILLS  # the children did get to write
