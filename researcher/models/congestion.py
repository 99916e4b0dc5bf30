"""How many calls should be in flight: a pure rule that is told what happened and keeps the answer in `limit`.

It doubles each round trip until the first sign of congestion, then adds one each round trip. A sign is a 429 or
another word of overload (the limit is halved, once for all calls that were in flight together), or, where the server
gives no figures of its own, a round in which latency rose and throughput did not. With the server's own queue
figures those decide instead of latency: a queue there means that we send too much, an empty one that there is room.
"""

from __future__ import annotations

from typing import NamedTuple

LATENCY_RATIO = 3.0  # times the best latency before more latency without more throughput counts as congestion
THROUGHPUT_GAIN = 1.05
ROUND = 32.0  # completions at least, before a round is judged
LATENCY_FLOOR = 16.0  # latency alone never cuts below this: it says that calls wait, not that they fail


class ServerLoad(NamedTuple):
    """A server's own figures: requests running and queued there, share of the KV cache in use (0 to 1)."""

    running: float
    waiting: float
    kv_use: float


class Congestion:
    """The limit of calls in flight, between `minimum` and `maximum`."""

    def __init__(self, start: float, *, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.limit = min(max(start, minimum), maximum)
        self.steered = False
        self._slow_start = True
        self._last_cut = float("-inf")
        self._best = float("inf")
        self._last_rate = 0.0
        self._round, self._size, self._count, self._seconds, self._units = 0.0, 0.0, 0, 0.0, 0.0

    def succeeded(self, now: float, seconds: float, units: float, *, saturated: bool) -> None:
        """A call ended well after `seconds`, with `units` of output (tokens, or 1)."""
        if saturated and not self.steered:
            self._set(self.limit + (1.0 if self._slow_start else 1.0 / self.limit))
        if not self._size:
            self._start_round(now - seconds)
        self._count += 1
        self._seconds += seconds
        self._units += units
        if self._count >= self._size:
            self._judge(now)

    def overloaded(self, now: float, started: float) -> None:
        """A call that began at `started` was refused for load. Calls older than the last cut do not cut again."""
        self._slow_start = False
        if started >= self._last_cut:
            self._last_cut = now
            self._set(self.limit / 2)

    def exhausted(self, in_flight: int) -> None:
        """This process has no more descriptors or ports: what is in flight now was already too much."""
        self._slow_start = False
        self._set(min(self.limit, in_flight * 0.9))

    def steer(self, load: ServerLoad, *, saturated: bool) -> None:
        """Follow the server's own figures."""
        self.steered = True
        if load.kv_use > 0.95 or load.waiting > max(4.0, load.running / 4):
            self._slow_start = False
            # What runs there now is what the server can hold, so the cut stops near it.
            self._set(max(self.limit * 0.8, min(self.limit, load.running * 1.05)))
        elif load.waiting <= 1 and saturated:
            self._set(self.limit + max(8.0, self.limit * (0.5 if self._slow_start else 0.1)))

    def cap(self, maximum: float) -> None:
        """Lower the maximum."""
        self.maximum = max(self.minimum, min(self.maximum, maximum))
        self._set(self.limit)

    def _judge(self, now: float) -> None:
        latency = self._seconds / self._units
        rate = self._units / max(now - self._round, 1e-9)
        congested = latency > LATENCY_RATIO * self._best and rate < THROUGHPUT_GAIN * self._last_rate
        if congested and not self.steered:
            self._slow_start = False
            self._set(max(self.limit * 0.9, min(self.limit, LATENCY_FLOOR)))
        # The best is let go slowly, so that a server that became slower for good is accepted as it is.
        self._best = min(latency, self._best * 1.02)
        self._last_rate = rate
        self._start_round(now)

    def _start_round(self, now: float) -> None:
        """As many completions as may be in flight now: about one round trip."""
        self._round, self._size = now, max(ROUND, self.limit)
        self._count, self._seconds, self._units = 0, 0.0, 0.0

    def _set(self, limit: float) -> None:
        self.limit = min(max(limit, self.minimum), self.maximum)
