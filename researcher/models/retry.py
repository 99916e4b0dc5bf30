"""When a failed call is made again, and after which wait: the server's, or a jittered back-off; bounded attempts."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from researcher.errors import ModelError, RateLimited

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` in all, `faults` of them where it is not a 429; back-off grows from `base` to `cap` seconds, with
    jitter; a server may ask for a wait of `longest` seconds at most."""

    attempts: int = 8
    faults: int = 8
    base: float = 0.25
    cap: float = 20.0
    longest: float = 120.0


def retry_after(headers: Mapping[str, str], *, now: Callable[[], float] = time.time) -> float | None:
    """The wait in seconds the server asked for; None where it did not, or where it makes no sense."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) / unit
        except ValueError:
            seconds = _until(text, now())
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _until(text: str, now: float) -> float:
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def asked_wait(error: BaseException | None) -> float | None:
    """The wait the server asked for with this error."""
    return getattr(error, "retry_after", None)


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """What `attempt` returns, after as many tries as the policy allows; else the last try's error."""
    backoff = wait_random_exponential(multiplier=policy.base, max=policy.cap)

    def again(error: BaseException) -> bool:
        asked = asked_wait(error)
        return isinstance(error, ModelError) and error.retryable and (asked is None or asked <= policy.longest)

    def wait(state: RetryCallState) -> float:
        asked = asked_wait(state.outcome.exception() if state.outcome else None)
        return backoff(state) if asked is None else asked

    def stop(state: RetryCallState) -> bool:
        limited = state.outcome is not None and isinstance(state.outcome.exception(), RateLimited)
        return state.attempt_number >= (policy.attempts if limited else min(policy.attempts, policy.faults))

    async def pause(seconds: float) -> Any:
        await sleep(seconds)

    loop = AsyncRetrying(stop=stop, wait=wait, retry=retry_if_exception(again), sleep=pause, reraise=True)
    return await loop(attempt)
