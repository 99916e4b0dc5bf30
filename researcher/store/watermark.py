"""How far the log is on disk, and the coroutines that wait for it: one wake-up of an event loop per commit."""

from __future__ import annotations

import asyncio
import threading
from heapq import heappop, heappush

from researcher.errors import StoreError

_Waiter = tuple[int, int, "asyncio.Future[None]"]


class Watermark:
    """Raised by the writer thread, awaited in event loops.

    Invariant of `_lock`: a waiter is registered only while its number is above `seq` and nothing has failed, so
    whoever raises the mark sees every waiter it releases.
    """

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.failure: StoreError | None = None
        self.delivered = False  # whether anybody was told of the failure
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, list[_Waiter]] = {}
        self._count = 0

    async def wait(self, seq: int) -> None:
        """Return when `seq` is on disk. Raises StoreError when it will never be."""
        if seq <= self.seq:
            return
        loop = asyncio.get_running_loop()
        with self._lock:
            if seq <= self.seq:
                return
            self.check()
            future = loop.create_future()
            self._count += 1
            heappush(self._waiting.setdefault(loop, []), (seq, self._count, future))
        await future

    def check(self) -> None:
        """Raise the failure, if there was one: a fresh error, so that thousands of callers share no traceback."""
        if self.failure is not None:
            self.delivered = True
            raise type(self.failure)(str(self.failure))

    def reach(self, seq: int) -> None:
        """Everything up to `seq` is on disk."""
        with self._lock:
            self.seq = seq
            loops = [loop for loop, heap in self._waiting.items() if heap[0][0] <= seq]
        self._wake(loops)

    def fail(self, error: StoreError) -> None:
        """Nothing above `seq` will ever be on disk."""
        with self._lock:
            self.failure = self.failure or error
            loops = list(self._waiting)
        self._wake(loops)

    def _wake(self, loops: list[asyncio.AbstractEventLoop]) -> None:
        for loop in loops:
            try:
                loop.call_soon_threadsafe(self._release, loop)
            except RuntimeError:  # the loop is closed, and with it whoever waited in it
                with self._lock:
                    self._waiting.pop(loop, None)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        done: list[asyncio.Future[None]] = []
        lost: list[asyncio.Future[None]] = []
        with self._lock:
            heap = self._waiting.get(loop)
            if heap is None:
                return
            while heap and heap[0][0] <= self.seq:
                done.append(heappop(heap)[2])
            if self.failure is not None:
                lost = [waiter[2] for waiter in heap]
                heap.clear()
            if not heap:
                del self._waiting[loop]
        for future in done:
            if not future.done():  # a waiter may have been cancelled
                future.set_result(None)
        for future in lost:
            if not future.done():
                self.delivered = True
                future.set_exception(StoreError(str(self.failure)))
