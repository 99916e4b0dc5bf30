"""The one thread that writes a run: it takes whatever has gathered, commits it at once, and says how far it got."""

from __future__ import annotations

import sqlite3
import threading
from typing import NamedTuple

from researcher.errors import StoreError
from researcher.store.blobs import pack
from researcher.store.schema import chain
from researcher.store.watermark import Watermark

LIMIT = 200_000
"""Events that may wait for the disk. Callers await durability, so only a dead disk gets here; then we refuse."""

LINGER = 0.001
"""Seconds to let more events gather before a commit: a tenth of a percent of a model call, and fewer commits."""

_GROUPS = (256, 32, 4, 1)
"""Rows of one INSERT. SQLite frees the interpreter lock for each statement, and a busy event loop gives it back
only every 5 ms; row by row, a batch would wait that long for each of its rows."""


class Row(NamedTuple):
    """An event on its way to the disk."""

    seq: int
    thread: str | None
    at: float
    body: bytes


class Writer:
    """Owns the connection for writing.

    Invariant of `_ready` (the lock): `rows` is in the order of `seq` without gaps, from the last committed number
    to `seq`; blobs handed over before a row are taken with it or earlier.
    """

    def __init__(
        self, connection: sqlite3.Connection, mark: Watermark, *, run: str, last: bytes, linger: float = LINGER
    ) -> None:
        self.seq = mark.seq
        self._connection = connection
        self._mark = mark
        self._run = run
        self._last = last
        self._linger = linger
        self._ready = threading.Condition()
        self._rows: list[Row] = []
        self._blobs: dict[str, bytes] = {}
        self._writing: dict[str, bytes] = {}
        self._idle = False
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"store-{run}", daemon=True)
        self._thread.start()

    def add(self, thread: str | None, at: float, body: bytes) -> int:
        """Queue an event; its number. Never blocks. Raises StoreError when the disk failed or hangs."""
        with self._ready:
            self._check()
            if len(self._rows) >= LIMIT:
                raise StoreError(f"run {self._run}: the disk is {LIMIT} events behind; free it and resume the run")
            self.seq += 1
            self._rows.append(Row(self.seq, thread, at, body))
            if self._idle:
                self._idle = False
                self._ready.notify()
            return self.seq

    def add_blob(self, sha256: str, data: bytes) -> None:
        """Queue bytes under their name."""
        with self._ready:
            self._check()
            self._blobs[sha256] = data
            if self._idle:
                self._idle = False
                self._ready.notify()

    def pending_blob(self, sha256: str) -> bytes | None:
        """Bytes that are not on disk yet."""
        with self._ready:
            return self._blobs[sha256] if sha256 in self._blobs else self._writing.get(sha256)

    def close(self) -> None:
        """Write what is queued and end the thread. Blocks; twice is once."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()

    def _check(self) -> None:
        self._mark.check()
        if self._closing:
            raise StoreError(f"run {self._run}: the event log is closed; open it again to append")

    def _work(self) -> None:
        error = f"run {self._run}: the writer stopped; resume the run"
        try:
            while self._take():
                pass
            error = ""
        except (sqlite3.Error, OSError) as fault:
            error = f"run {self._run}: writing the event log failed ({fault}); make room or repair the disk, and resume"
        finally:
            # Also on a defect, which the thread's excepthook reports: nobody may wait for a writer that is gone.
            if error:
                self._mark.fail(StoreError(error))
            self._end()

    def _take(self) -> bool:
        """Commit one batch; False when there will be none."""
        with self._ready:
            while not (self._rows or self._blobs or self._closing):
                self._idle = True
                self._ready.wait()
            if self._linger and not self._closing:
                self._ready.wait_for(lambda: self._closing, self._linger)
            rows, self._rows = self._rows, []
            blobs, self._blobs = self._blobs, {}
            self._writing = blobs
        if not rows and not blobs:
            return False
        self._commit(rows, blobs)
        with self._ready:
            self._writing = {}
        if rows:
            self._mark.reach(rows[-1].seq)
        return True

    def _commit(self, rows: list[Row], blobs: dict[str, bytes]) -> None:
        connection, last = self._connection, self._last
        packed = [(bytes.fromhex(sha256), len(data), pack(data)) for sha256, data in blobs.items()]
        values: list[int | str | float | bytes | None] = []
        for seq, thread, at, body in rows:
            last = chain(last, seq, thread, at, body)
            values += (seq, thread, at, body, last)
        connection.execute("BEGIN IMMEDIATE")
        if packed:
            connection.executemany("INSERT OR IGNORE INTO blobs (sha256, size, data) VALUES (?, ?, ?)", packed)
        start = 0
        for size in _GROUPS:
            statement = f"INSERT INTO events (seq, thread, at, body, chain) VALUES {','.join(['(?,?,?,?,?)'] * size)}"
            while len(rows) * 5 - start >= size * 5:
                connection.execute(statement, values[start : start + size * 5])
                start += size * 5
        connection.commit()
        self._last = last

    def _end(self) -> None:
        """Close the connection, which moves the WAL into the file; on a broken disk that fails too, harmlessly."""
        try:
            if self._connection.in_transaction:
                self._connection.rollback()
        except sqlite3.Error as error:
            self._mark.fail(StoreError(f"run {self._run}: giving up a commit failed ({error}); repair the disk"))
        finally:
            self._connection.close()
