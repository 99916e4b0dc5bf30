"""`MemoryStore`: an event log in memory, for tests; everything is durable at once, or when the test says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import anyio

from researcher.errors import StoreError
from researcher.events import Event, EventBody


class MemoryStore:
    """A Store of one run. With `held=True` nothing is durable until `release()`; `fail(text)` breaks the disk."""

    def __init__(
        self, *, events: tuple[Event, ...] = (), held: bool = False, clock: Callable[[], float] | None = None
    ) -> None:
        self.events = list(events)
        self.blobs: dict[str, bytes] = {}
        self.closed = False
        self._clock = clock
        self._held = held
        self._durable = len(self.events)
        self._failure: str | None = None
        self._moved: anyio.Event | None = None

    def append(self, thread: str | None, body: EventBody) -> Event:
        """The event with its number. `at` is the number, unless a clock was given: tests want equal logs equal."""
        self._check()
        seq = len(self.events) + 1
        event = Event(seq, thread, float(seq) if self._clock is None else self._clock(), body)
        self.events.append(event)
        if not self._held:
            self._durable = seq
        return event

    async def durable(self, seq: int) -> None:
        """Return when the event counts as being on disk."""
        while seq > self._durable:
            self._check()
            if self._moved is None:
                self._moved = anyio.Event()
            await self._moved.wait()

    def put_blob(self, data: bytes) -> str:
        """Keep bytes under their sha256 (hex)."""
        self._check()
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return name

    def get_blob(self, sha256: str) -> bytes:
        """The bytes under this name."""
        if sha256 not in self.blobs:
            raise StoreError(f"there is no source {sha256[:12]} in this store")
        return self.blobs[sha256]

    def read(self, after: int = 0) -> Iterator[Event]:
        """The durable events with `seq > after`."""
        yield from self.events[after : self._durable]

    async def aclose(self) -> None:
        """Refuse appends from now on."""
        self.release()
        self.closed = True

    def release(self) -> None:
        """Everything appended so far is durable, and what follows is at once."""
        self._held = False
        if self._failure is None:
            self._durable = len(self.events)
        self._wake()

    def fail(self, text: str = "No space left on device") -> None:
        """The disk breaks: what is not durable never will be, and appends are refused."""
        self._failure = f"writing the event log failed ({text})"
        self._wake()

    def _check(self) -> None:
        if self._failure is not None:
            raise StoreError(self._failure)
        if self.closed:
            raise StoreError("the event log is closed; open it again to append")

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
