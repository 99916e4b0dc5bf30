"""Follows a vLLM server's own queue: reads /metrics while calls are in flight and tells the limiter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from researcher.errors import ModelError
from researcher.models.congestion import ServerLoad
from researcher.models.exchange import Exchange
from researcher.models.limiter import AdaptiveLimiter

INTERVAL = 0.5  # seconds between two looks
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_KV = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # the newer name and the older


def read_load(body: bytes) -> ServerLoad | None:
    """The load in Prometheus text, over all engines of the server; None where it is not vLLM's."""
    running = waiting = kv_use = 0.0
    found = False
    for line in body.decode("utf-8", "replace").splitlines():
        if not line.startswith("vllm:"):
            continue
        name = line.partition("{")[0].partition(" ")[0]
        try:
            value = float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])
        except (IndexError, ValueError):
            continue
        if name == _RUNNING:
            running, found = running + value, True
        elif name == _WAITING:
            waiting += value
        elif name in _KV:
            kv_use = max(kv_use, value)
    return ServerLoad(running, waiting, kv_use) if found else None


class Steering:
    """One task while calls are in flight; it ends by itself when there are none."""

    def __init__(
        self, exchange: Exchange, limiter: AdaptiveLimiter, *, sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self._exchange, self._limiter, self._sleep = exchange, limiter, sleep
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """A call begins: look at the server until none is in flight."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="follow-metrics")

    async def aclose(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _follow(self) -> None:
        while True:
            await self._sleep(INTERVAL)
            if not self._limiter.in_flight and not self._limiter.waiting:
                return
            try:
                async with asyncio.timeout(5):
                    answered = await self._exchange.get(f"{self._exchange.root}/metrics")
            except (ModelError, TimeoutError):
                continue  # no news: the calls themselves say when the server is gone
            load = read_load(answered.body) if answered.status == 200 else None
            if load is not None:
                self._limiter.steer(load)
