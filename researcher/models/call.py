"""One call under the endpoint's limiter: its permit, its attempts, its total deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from researcher.errors import DeadlineExceeded, ModelError, RateLimited, ServerFault
from researcher.models.limiter import AdaptiveLimiter
from researcher.models.retry import RetryPolicy, asked_wait, retrying
from researcher.models.transport import OutOfDescriptors

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]
OVERLOAD = frozenset({503, 529})


class Call(Generic[T]):
    """Runs `send` until it succeeds, cannot succeed, or is late. `attempts` counts how often it was sent."""

    def __init__(
        self,
        send: Callable[[], Awaitable[T]],
        *,
        limiter: AdaptiveLimiter,
        policy: RetryPolicy,
        total: float,
        where: str,
        sleep: Sleep,
    ) -> None:
        self._send, self._limiter, self._policy = send, limiter, policy
        self._total, self._where, self._sleep = total, where, sleep
        self.attempts = 0
        self.seconds = 0.0  # of the attempt that succeeded
        self._fault: ModelError | None = None
        self._replay = False

    async def run(self) -> T:
        """What `send` gives. Raises ModelError."""
        await self._limiter.acquire()
        try:
            async with asyncio.timeout(self._total):  # entering does not suspend, so the permit cannot be lost
                try:
                    return await self._once(admitted=True)
                except ModelError as fault:
                    if not fault.retryable:
                        raise
                    self._fault, self._replay = fault, True
                return await retrying(self._attempt, self._policy, sleep=self._sleep)
        except TimeoutError:
            last = f"; the last fault: {self._fault}" if self._fault else ""
            late = DeadlineExceeded(f"{self._where} gave no complete reply within {self._total:g} s{last}")
        raise late

    async def _attempt(self) -> T:
        """One attempt for the retry loop, which is entered only after a first failure: that one is replayed to it."""
        if self._replay and self._fault is not None:
            self._replay = False
            raise self._fault
        try:
            return await self._once(admitted=False)
        except ModelError as fault:
            self._fault = fault
            raise

    async def _once(self, *, admitted: bool) -> T:
        while True:
            if not admitted:
                await self._limiter.acquire(first=True)
            admitted = False
            started = time.monotonic()
            try:
                result = await self._send()
                self.seconds = time.monotonic() - started
                self.attempts += 1
                return result
            except OutOfDescriptors as starved:  # back-pressure: never sent, so it is no attempt
                self._fault = starved
                self._limiter.exhausted()
            except ModelError as fault:
                self.attempts += 1
                self._slow_down(fault, started)
                raise
            finally:
                self._limiter.release()
            await self._sleep(random.uniform(0.05, 0.25))

    def _slow_down(self, fault: ModelError, started: float) -> None:
        """One refusal for load is for all callers: the limit falls, and the wait the server asked for is everyone's."""
        if not (isinstance(fault, RateLimited) or (isinstance(fault, ServerFault) and fault.status in OVERLOAD)):
            return
        self._limiter.overloaded(started)
        asked = asked_wait(fault)
        if asked is not None and asked <= self._policy.longest:
            self._limiter.pause(asked)
