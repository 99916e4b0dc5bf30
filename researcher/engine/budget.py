"""The ledger of a run: what was spent, what calls in flight may still spend, and what is left.

Invariant: used + held never passes a limit's spendable part, so parallel calls cannot overshoot it together; a call
holds its worst case (prompt estimate + max_tokens) until it settles for what it really used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from researcher.errors import BudgetExceeded
from researcher.types import Budget, Usage
from researcher.views import BudgetLeft

DEFAULT_MAX_TOKENS = 2048
"""Tokens a call holds, and is limited to, when neither the work nor the budget says."""
SMALLEST_CALL = 16
"""A call that could sample fewer tokens than this is not worth making."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for these tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(slots=True)
class Hold:
    """What one call in flight may spend; `max_tokens` is what it may sample."""

    tokens: int
    max_tokens: int
    cost: float


class Ledger:
    """Admits calls against a budget. `now` is a monotonic clock in seconds; `spent_seconds`: by earlier processes."""

    def __init__(
        self,
        budget: Budget,
        *,
        now: Callable[[], float],
        used: Usage = Usage(),
        spent_seconds: float = 0.0,
        prices: Prices | None = None,
    ) -> None:
        self.budget = budget
        self.used = used
        self.prices = prices
        self.refused: BudgetExceeded | None = None
        """The first limit that a call was refused for; None while none was."""
        self._now = now
        self._began = now() - spent_seconds
        self._held_tokens = 0
        self._held_sampled = 0
        self._held_calls = 0
        self._held_cost = 0.0
        self._waiting: deque[anyio.Event] = deque()
        """Calls that wait for those in flight, first come, first served; one is woken at a time."""

    @property
    def seconds(self) -> float:
        """Wall time of the run, earlier processes counted in."""
        return self._now() - self._began

    def left(self) -> BudgetLeft:
        """What is left of each limit."""
        tokens = _minus(self.budget.tokens, self.used.tokens)
        calls = _minus(self.budget.calls, self.used.calls)
        seconds = _minus(self.budget.seconds, self.seconds)
        cost = _minus(self.budget.cost, self.used.cost or 0.0)
        return BudgetLeft(
            tokens,
            calls,
            seconds,
            cost,
            spendable=self.blocked(False) is None,
            exhausted=self.blocked(True) is not None,
            sampled=_minus(self.budget.sampled, self.used.completion_tokens),
        )

    def blocked(self, reserved: bool) -> BudgetExceeded | None:
        """The limit that forbids one more call, holds left aside; None while there is room."""
        share = 1.0 if reserved else 1.0 - self.budget.reserve
        for kind, value, limit, least in (
            ("tokens", self.used.tokens, self.budget.tokens, SMALLEST_CALL),
            ("sampled", self.used.completion_tokens, self.budget.sampled, SMALLEST_CALL),
            ("calls", self.used.calls, self.budget.calls, 1),
            ("seconds", self.seconds, self.budget.seconds, 0),
            ("cost", self.used.cost or 0.0, self.budget.cost, 0),
        ):
            if limit is not None:
                allowed = limit * share if kind != "calls" or reserved else max(limit * share, 1.0)
                if value + least > allowed or (least == 0 and value >= allowed):
                    return BudgetExceeded(kind, value, limit)
        return None

    async def hold(self, prompt_tokens: int, max_tokens: int | None, *, reserved: bool = False) -> Hold:
        """Room for one call; waits while only calls in flight stand in the way. Raises BudgetExceeded."""
        try:
            return await self._hold(prompt_tokens, max_tokens, reserved)
        except BudgetExceeded as error:
            self.refused = self.refused or error
            raise

    async def _hold(self, prompt_tokens: int, max_tokens: int | None, reserved: bool) -> Hold:
        budget = self.budget
        if budget.tokens is None and budget.sampled is None and budget.calls is None and budget.cost is None:
            if stopped := self.blocked(reserved):
                raise stopped
            return Hold(0, max_tokens or DEFAULT_MAX_TOKENS, 0.0)
        try:
            if self._waiting and self._held_calls:
                await self._turn(first=False)
            while True:
                if stopped := self.blocked(reserved):
                    raise stopped
                if hold := self._fit(prompt_tokens, max_tokens or DEFAULT_MAX_TOKENS, reserved):
                    self._held_tokens += hold.tokens
                    self._held_sampled += hold.max_tokens
                    self._held_cost += hold.cost
                    self._held_calls += 1
                    return hold
                if self._held_calls == 0:
                    raise self._nearest(prompt_tokens)
                await self._turn(first=True)
        finally:
            self._wake()  # whoever leaves the head of the queue, by whatever way, lets the next one look

    async def _turn(self, *, first: bool) -> None:
        """Wait in the queue, at its head or its tail."""
        turn = anyio.Event()
        (self._waiting.appendleft if first else self._waiting.append)(turn)
        try:
            await turn.wait()
        finally:
            if not turn.is_set():  # cancelled
                self._waiting.remove(turn)

    def _wake(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()

    def settle(self, hold: Hold, usage: Usage) -> None:
        """Replace a hold by what was really used."""
        if hold.tokens or self._held_calls:
            self._held_tokens -= hold.tokens
            self._held_sampled -= hold.max_tokens
            self._held_cost -= hold.cost
            self._held_calls -= 1
        self.used = self.used + usage
        self._wake()

    def priced(self, usage: Usage) -> Usage:
        """The usage with its cost, where prices are known and the server did not say."""
        if self.prices is None or usage.cost is not None:
            return usage
        return Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            calls=usage.calls,
            cost=self.prices.cost(usage.prompt_tokens, usage.completion_tokens),
        )

    def _fit(self, prompt_tokens: int, max_tokens: int, reserved: bool) -> Hold | None:
        share = 1.0 if reserved else 1.0 - self.budget.reserve
        if self.budget.calls is not None:
            allowed = self.budget.calls if reserved else max(self.budget.calls * share, 1.0)
            if self.used.calls + self._held_calls + 1 > allowed:
                return None
        if self.budget.tokens is not None:
            room = int(self.budget.tokens * share) - self.used.tokens - self._held_tokens - prompt_tokens
            if room < SMALLEST_CALL or (room < max_tokens and self._held_calls > 0):
                return None
            max_tokens = min(max_tokens, room)
        if self.budget.sampled is not None:
            room = int(self.budget.sampled * share) - self.used.completion_tokens - self._held_sampled
            if room < SMALLEST_CALL or (room < max_tokens and self._held_calls > 0):
                return None
            max_tokens = min(max_tokens, room)
        cost = self.prices.cost(prompt_tokens, max_tokens) if self.prices else 0.0
        if self.budget.cost is not None and (self.used.cost or 0.0) + self._held_cost + cost > self.budget.cost * share:
            return None
        return Hold(prompt_tokens + max_tokens, max_tokens, cost)

    def _nearest(self, prompt_tokens: int) -> BudgetExceeded:
        """The limit that a call of this size would pass, with nothing else in flight."""
        if self.budget.tokens is not None and self.used.tokens + prompt_tokens + SMALLEST_CALL > (
            self.budget.tokens * (1.0 - self.budget.reserve)
        ):
            return BudgetExceeded("tokens", self.used.tokens + prompt_tokens, self.budget.tokens)
        if self.budget.sampled is not None and self.used.completion_tokens + SMALLEST_CALL > (
            self.budget.sampled * (1.0 - self.budget.reserve)
        ):
            return BudgetExceeded("sampled", self.used.completion_tokens, self.budget.sampled)
        if self.budget.cost is not None:
            return BudgetExceeded("cost", self.used.cost or 0.0, self.budget.cost)
        return BudgetExceeded("calls", self.used.calls, self.budget.calls or 0)


def _minus(limit: float | None, value: float) -> float | None:
    return None if limit is None else max(0.0, limit - value)
