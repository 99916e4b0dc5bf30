"""`RunReader(path)` reads a run, also on a read-only disk and while another process writes it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from researcher.errors import StoreCorrupt, StoreError, UserError
from researcher.events import Event
from researcher.store.blobs import unpack
from researcher.store.schema import GENESIS, chain, check_version, connect, decode

PAGE = 512
"""Events of one query: a reader holds no transaction in between, so it never keeps the WAL from shrinking."""


class RunReader:
    """Events and blobs of one run, checked as they are read. Sees what is durable, from the time of each query.

    Invariant of `_lock`: one thread at a time uses the connection.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.run = self.path.stem
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        if not self.path.is_file():
            raise UserError(f"no run {self.run!r} in {self.path.parent}; `researcher ls` lists the runs there are")
        self._connection = self._open()

    def read(self, after: int = 0) -> Iterator[Event]:
        """The durable events with `seq > after`. Raises StoreCorrupt at the first that is damaged or missing."""
        last = self._chain_of(after) if after else GENESIS
        while rows := self._query(
            "SELECT seq, thread, at, body, chain FROM events WHERE seq > ? ORDER BY seq LIMIT ?", after, PAGE
        ):
            for seq, thread, at, body, check in rows:
                after += 1
                if seq != after:
                    raise self._damaged(f"event {after} is missing", after)
                last = self._checked(last, seq, thread, at, body, check)
                yield decode(self.run, seq, thread, at, body)

    def get_blob(self, sha256: str) -> bytes:
        """The bytes under this name. Raises StoreError if there are none, StoreCorrupt if they are damaged."""
        rows = self._query("SELECT data FROM blobs WHERE sha256 = ?", bytes.fromhex(sha256))
        if not rows:
            raise StoreError(f"run {self.run}: there is no source {sha256[:12]}; was it stored by another run?")
        stored = rows[0][0]
        return unpack(self.run, sha256, stored if isinstance(stored, bytes) else b"")

    def blobs(self) -> list[str]:
        """The names of all blobs."""
        return [name.hex() for (name,) in self._query("SELECT sha256 FROM blobs ORDER BY sha256")]

    def head(self) -> int:
        """The number of the last event; 0 if there is none."""
        return int(self._query("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def verify(self, *, blobs: bool = False) -> bytes:
        """The last checksum, if the file is whole: its pages, every event, no gap. Raises StoreCorrupt otherwise.

        `blobs` reads every source as well.
        """
        found = self._query("PRAGMA quick_check(1)")[0][0]
        if found != "ok":
            raise StoreCorrupt(f"run {self.run}: the file is damaged ({found}); restore {self.path} from a copy")
        last, after = GENESIS, 0
        while rows := self._query(
            "SELECT seq, thread, at, body, chain FROM events WHERE seq > ? ORDER BY seq LIMIT ?", after, PAGE
        ):
            for seq, thread, at, body, check in rows:
                after += 1
                if seq != after:
                    raise self._damaged(f"event {after} is missing", after)
                last = self._checked(last, seq, thread, at, body, check)
        if blobs:
            for name in self.blobs():
                self.get_blob(name)
        return last

    def event(self, seq: int) -> Event:
        """One event, checked. Raises StoreError if there is none."""
        found = next(self.read(seq - 1), None)
        if found is None:
            raise StoreError(f"run {self.run} has no event {seq}; its last is {self.head()}")
        return found

    def close(self) -> None:
        """Give the file back; twice is once."""
        self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        with self._faults():
            connection = connect(self.path, "ro")
            try:
                check_version(connection, self.run)
                return connection
            except sqlite3.OperationalError:
                # A WAL file needs an index beside it, which cannot be made on a read-only disk: read a copy.
                connection.close()
        with self._faults():
            self._copy = tempfile.TemporaryDirectory(prefix="researcher-")
            copy = Path(self._copy.name) / self.path.name
            for suffix in ("", "-wal"):
                source = Path(f"{self.path}{suffix}")
                if source.exists():
                    shutil.copyfile(source, f"{copy}{suffix}")
            connection = connect(copy, "rw")
            check_version(connection, self.run)
            return connection

    def _query(self, statement: str, *values: object) -> list[Any]:
        with self._lock, self._faults():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"run {self.run}: {self.path} cannot be read ({error}); check the disk") from error
        except sqlite3.DatabaseError as error:
            raise StoreCorrupt(
                f"run {self.run}: the file is damaged ({error}); restore {self.path} from a copy"
            ) from error
        except OSError as error:
            raise StoreError(f"run {self.run}: {self.path} cannot be read ({error.strerror})") from error

    def _chain_of(self, seq: int) -> bytes:
        rows = self._query("SELECT chain FROM events WHERE seq = ?", seq)
        if not rows:
            return GENESIS  # past the end: there is nothing after it to check
        return bytes(rows[0][0])

    def _checked(self, last: bytes, seq: int, thread: str | None, at: float, body: bytes, check: bytes) -> bytes:
        # A damaged file may hold any type in any column.
        if not isinstance(body, bytes) or not isinstance(at, float) or not isinstance(thread, str | None):
            raise self._damaged(f"event {seq} is not an event", seq)
        if chain(last, seq, thread, at, body) != check:
            raise self._damaged(f"event {seq} does not match its checksum", seq)
        return check

    def _damaged(self, what: str, seq: int) -> StoreCorrupt:
        before = f"; events 1 to {seq - 1} can be read" if seq > 1 else ""
        return StoreCorrupt(f"run {self.run}: {what}{before}; restore {self.path} from a copy")
