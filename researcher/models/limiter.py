"""Permits for calls in flight, shared by all callers of an endpoint.

First come, first served. Invariants between any two awaits: `in_flight` is the number of permits given and not yet
returned; a waiter that was cancelled holds nothing; nobody waits while a permit is free and there is no pause.
Each operation is O(1), amortised, with any number of waiters.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from researcher.models.congestion import Congestion, ServerLoad


class AdaptiveLimiter:
    """Permits: `acquire`, then `release` exactly once; what happened in between moves the limit."""

    def __init__(
        self, start: int = 1024, *, minimum: int = 1, maximum: int = 16_384, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rule = Congestion(start, minimum=max(1, minimum), maximum=max(1, minimum, maximum))
        self._clock = clock
        self._in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._waiting = 0
        self._paused_until: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """How many calls may be in flight now."""
        return int(self._rule.limit)

    @property
    def in_flight(self) -> int:
        """How many permits are out."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many callers wait for a permit."""
        return self._waiting

    @property
    def saturated(self) -> bool:
        """The limit, not the demand, decides how many calls are in flight."""
        return self._waiting > 0 or self._in_flight >= 0.9 * self._rule.limit

    @property
    def paused(self) -> bool:
        """No permit is given until a pause is over."""
        return self._paused_until is not None

    @property
    def free(self) -> bool:
        """A permit could be had at once."""
        return self._in_flight < int(self._rule.limit) and not self._waiting and self._paused_until is None

    async def acquire(self, *, first: bool = False) -> None:
        """Return with a permit. `first`: before the others, for a call that already had its turn."""
        if self.free:
            self._in_flight += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        (self._waiters.appendleft if first else self._waiters.append)(waiter)
        self._grant()  # those before it may have been cancelled in this very moment
        granted = False
        try:
            await waiter
            granted = True
        finally:
            if not granted and waiter.done() and not waiter.cancelled():
                self.release()  # the permit came in the same moment as the cancellation
            elif not granted:
                waiter.cancel()  # its place in the queue is skipped when it is reached
                self._waiting -= 1

    def release(self) -> None:
        """Give the permit back."""
        assert self._in_flight > 0, "a permit was returned twice"
        self._in_flight -= 1
        self._grant()

    def pause(self, seconds: float) -> None:
        """Give no permit for this long; of several pauses the longest counts."""
        until = self._clock() + seconds
        if self._paused_until is not None and until <= self._paused_until:
            return
        self._paused_until = until
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._resume)

    def cap(self, maximum: int) -> None:
        """Never give more than this many permits at once, if it gave more before."""
        self._rule.cap(maximum)

    def close(self) -> None:
        """End a pause, so that no timer is left behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._resume()

    def succeeded(self, seconds: float, units: float = 1.0) -> None:
        """A call ended well after `seconds`, with `units` of output."""
        self._rule.succeeded(self._clock(), seconds, max(units, 1.0), saturated=self.saturated)

    def overloaded(self, started: float) -> None:
        """The server refused a call, begun at `started`, for load."""
        self._rule.overloaded(self._clock(), started)

    def exhausted(self) -> None:
        """This process is out of descriptors or ports."""
        self._rule.exhausted(self._in_flight)

    def steer(self, load: ServerLoad) -> None:
        """Follow the server's own figures."""
        self._rule.steer(load, saturated=self.saturated)
        self._grant()

    def _resume(self) -> None:
        self._timer, self._paused_until = None, None
        self._grant()

    def _grant(self) -> None:
        while self._waiters and self._paused_until is None and self._in_flight < int(self._rule.limit):
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._waiting -= 1
                self._in_flight += 1
                waiter.set_result(None)
        if not self._waiting:
            self._waiters.clear()
