"""`RunStore.create(path)` and `RunStore.open(path)`: the event log of one run, in one SQLite file, for writing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Self

import anyio.to_thread

from researcher.errors import StoreCorrupt, StoreError, UserError
from researcher.events import Event, EventBody
from researcher.store import schema, wal
from researcher.store.blobs import digest
from researcher.store.lock import RunLock
from researcher.store.reader import RunReader
from researcher.store.schema import Synchronous
from researcher.store.watermark import Watermark
from researcher.store.writer import LINGER, Writer

PAGE = 256
"""Events read at a time, so that a slow reader does not hold the file."""


class RunStore:
    """An append-only log whose events are acknowledged when they are on disk; one writer per run.

    `synchronous="full"` syncs every commit: what `durable` acknowledged survives a crash of the process, of the
    system, and a loss of power. "normal" syncs only now and then: a crash of the process loses nothing, a crash
    of the system or a loss of power may lose the last commits, never the ones before them, and never the file.

    `notice` says in one sentence what was found and dropped on opening, if anything was.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: RunLock,
        *,
        last: bytes,
        clock: Callable[[], float],
        linger: float,
        notice: str | None,
    ) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.run = path.stem
        self.notice = notice
        self._lock = lock
        self._clock = clock
        self._reader = RunReader(path)
        self._mark = Watermark(self._reader.head())
        self._writer = Writer(connection, self._mark, run=self.run, last=last, linger=linger)
        self._known = set(self._reader.blobs())
        self._closed = False

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        synchronous: Synchronous = "full",
        clock: Callable[[], float] = time.time,
        linger: float = LINGER,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> Self:
        """A new, empty log. Raises StoreError if the folder cannot be written, UserError if the run exists.

        `factory` makes the connection that writes; tests break or slow down its `commit`.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"run {path.stem}: cannot make the folder {path.parent} ({error.strerror}); choose one that is writable"
            ) from error
        with contextlib.ExitStack() as undo:
            lock = RunLock(path)
            undo.callback(lock.release)
            if path.exists():
                raise UserError(f"run {path.stem} exists already in {path.parent}; resume it, or choose another name")
            with _writing(path):
                connection = schema.connect(path, "rwc", factory=factory)
                undo.callback(connection.close)
                schema.create(connection)
                _sync_folder(path.parent)
            return cls._start(
                path, connection, lock, undo, schema.GENESIS, synchronous=synchronous, clock=clock, linger=linger
            )

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        synchronous: Synchronous = "full",
        clock: Callable[[], float] = time.time,
        linger: float = LINGER,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> Self:
        """The log of an existing run, locked, recovered, migrated and verified.

        Raises UserError for an unknown run, StoreLocked, StoreCorrupt, or StoreError where it cannot be written.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no run {path.stem!r} in {path.parent}; `researcher ls` lists the runs there are")
        with contextlib.ExitStack() as undo:
            lock = RunLock(path)
            undo.callback(lock.release)
            written = wal.pages(path)
            with _writing(path):
                connection = schema.connect(path, "rw", factory=factory)
                undo.callback(connection.close)
                schema.migrate(connection, path.stem)
                _, kept, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                # A file that cannot be written shows here, not at the first event.
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
            with RunReader(path) as reader:
                last = reader.verify()
            notice = None
            if written > max(kept, 0):
                notice = (
                    f"run {path.stem}: {written - max(kept, 0)} pages of a last, unfinished commit were dropped;"
                    " nothing that had been acknowledged was in them"
                )
            return cls._start(
                path, connection, lock, undo, last, synchronous=synchronous, clock=clock, linger=linger, notice=notice
            )

    @classmethod
    def _start(
        cls,
        path: Path,
        connection: sqlite3.Connection,
        lock: RunLock,
        undo: contextlib.ExitStack,
        last: bytes,
        *,
        synchronous: Synchronous,
        clock: Callable[[], float],
        linger: float,
        notice: str | None = None,
    ) -> Self:
        connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        store = cls(path, connection, lock, last=last, clock=clock, linger=linger, notice=notice)
        undo.pop_all()
        return store

    def append(self, thread: str | None, body: EventBody) -> Event:
        """The event with its number, at once and without blocking; on disk when `durable` returns.

        Raises StoreError once a write has failed: nothing can be recorded any more, what was is still readable.
        """
        at = float(self._clock())
        encoded, body = schema.encode(body)
        return Event(self._writer.add(thread, at, encoded), thread, at, body)

    async def durable(self, seq: int) -> None:
        """Return when the event is on disk. Raises StoreError when it will never be."""
        await self._mark.wait(seq)

    def put_blob(self, data: bytes) -> str:
        """Store bytes under their sha256 (hex), on disk no later than any event appended afterwards."""
        name = digest(data)
        if name not in self._known:
            self._writer.add_blob(name, data)
            self._known.add(name)
        return name

    def get_blob(self, sha256: str) -> bytes:
        """The bytes under this name, also before they are on disk. Raises StoreError, StoreCorrupt."""
        pending = self._writer.pending_blob(sha256)
        return self._reader.get_blob(sha256) if pending is None else pending

    def read(self, after: int = 0) -> Iterator[Event]:
        """The durable events with `seq > after`, also when the store is closed meanwhile.

        Raises StoreCorrupt at the first that is damaged.
        """
        while not self._closed:
            page = list(islice(self._reader.read(after), PAGE))
            if not page:
                return
            yield from page
            after = page[-1].seq
        with RunReader(self.path) as reader:
            yield from reader.read(after)

    def verify(self, *, blobs: bool = False) -> None:
        """Return if what is on disk is whole. Raises StoreCorrupt, which says what is not."""
        self._reader.verify(blobs=blobs)

    async def aclose(self) -> None:
        """Write what is queued, close the file, let others write. Raises StoreError if that lost an event."""
        await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """`aclose` for callers without an event loop; blocks. Twice is once."""
        if self._closed:
            return
        self._closed = True
        self._reader.close()
        self._writer.close()
        self._lock.release()
        if self._mark.failure is not None and not self._mark.delivered:
            self._mark.check()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """SQLite's errors while a file is made ready for writing, as ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"run {path.stem}: {path} cannot be written ({error}); check the folder and disk") from error
    except sqlite3.DatabaseError as error:
        raise StoreCorrupt(f"run {path.stem}: the file is damaged ({error}); restore {path} from a copy") from error


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a loss of power."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
