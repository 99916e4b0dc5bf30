"""The one writer of a run: an event goes to the log, into the graph and to whoever follows, in that order."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from researcher.events import Event, EventBody
from researcher.graph import ThoughtGraph
from researcher.protocols import Store


class Journal:
    """Appends events of one run. Invariant: the graph is the fold of exactly the events appended so far."""

    def __init__(self, store: Store, graph: ThoughtGraph) -> None:
        self.store = store
        self.graph = graph
        self._last = graph.seq
        self._closed = False
        self._moved: anyio.Event | None = None

    def add(self, thread: str | None, body: EventBody) -> Event:
        """The event, in the graph at once, on disk soon: await `durable` before anything that must not be lost."""
        event = self.store.append(thread, body)
        self.graph.apply(event)
        self._last = event.seq
        if self._moved is not None:
            self._wake()
        return event

    async def durable(self, event: Event) -> None:
        """Return when the event is on disk. Raises StoreError."""
        await self.store.durable(event.seq)

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Every event with `seq > after`, once it is durable, until the run ends.

        Reads the log instead of a queue: a slow follower costs no memory and loses nothing.
        """
        while True:
            last = self._last
            if last > after:
                await self.store.durable(last)
                for event in self.store.read(after):
                    yield event
                    after = event.seq
            elif self._closed:
                return
            else:
                if self._moved is None:
                    self._moved = anyio.Event()
                await self._moved.wait()

    def close(self) -> None:
        """End all followers once they have read what there is."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
