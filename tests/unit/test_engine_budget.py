"""The ledger: parallel calls together never pass a limit."""

import anyio
import anyio.lowlevel
import pytest

from researcher.engine.budget import Hold, Ledger, Prices
from researcher.errors import LimitExceeded
from researcher.types import Budget, Usage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ledger(budget: Budget, **options) -> Ledger:
    return Ledger(budget, now=Clock(), **options)


@pytest.mark.anyio
async def test_without_limits_every_call_is_admitted() -> None:
    free = ledger(Budget())
    hold = await free.hold(10, 50)
    assert hold.max_tokens == 50
    free.settle(hold, Usage(prompt_tokens=10, completion_tokens=5, calls=1))
    assert free.used.tokens == 15
    assert free.left() == (None, None, None, None, True, False, None)


@pytest.mark.anyio
async def test_a_call_is_cut_to_what_is_left() -> None:
    tight = ledger(Budget(tokens=100, reserve=0.0))
    hold = await tight.hold(40, 500)
    assert hold.max_tokens == 60


@pytest.mark.anyio
async def test_sampled_tokens_have_a_limit_of_their_own() -> None:
    tight = ledger(Budget(sampled=200, reserve=0.1))
    first = await tight.hold(1_000_000, 160)
    assert first.max_tokens == 160
    tight.settle(first, Usage(prompt_tokens=1_000_000, completion_tokens=150, calls=1))
    assert tight.left().sampled == 50
    second = await tight.hold(0, 60)
    assert second.max_tokens == 30
    tight.settle(second, Usage(completion_tokens=30, calls=1))
    with pytest.raises(LimitExceeded, match="sampled limit reached: 180 of 200"):
        await tight.hold(0, 60)
    assert (await tight.hold(0, 60, reserved=True)).max_tokens == 20


@pytest.mark.anyio
async def test_parallel_calls_never_sample_past_the_limit_together() -> None:
    tight = ledger(Budget(sampled=100, reserve=0.0))
    held = [await tight.hold(10, 40), await tight.hold(10, 40)]
    with anyio.move_on_after(0) as scope:
        await tight.hold(10, 40)
    assert scope.cancelled_caught
    tight.settle(held[0], Usage(completion_tokens=10, calls=1))
    assert (await tight.hold(10, 40)).max_tokens == 40


@pytest.mark.anyio
async def test_parallel_calls_never_pass_the_token_limit() -> None:
    tight = ledger(Budget(tokens=1000, reserve=0.0))
    refused = 0
    peak = 0

    async def call() -> None:
        nonlocal refused, peak
        try:
            hold = await tight.hold(20, 100)
        except LimitExceeded:
            refused += 1
            return
        peak = max(peak, tight.used.tokens + tight._held_tokens)
        await anyio.lowlevel.checkpoint()
        tight.settle(hold, Usage(prompt_tokens=20, completion_tokens=hold.max_tokens, calls=1))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call)
    assert peak <= 1000
    assert tight.used.tokens <= 1000
    assert refused > 0
    assert tight.refused is not None
    assert tight.refused.kind == "tokens"


@pytest.mark.anyio
async def test_calls_wait_for_those_in_flight_rather_than_fail() -> None:
    tight = ledger(Budget(calls=2, reserve=0.0))
    first = await tight.hold(1, 1)
    second = await tight.hold(1, 1)
    order: list[str] = []

    async def third() -> None:
        with pytest.raises(LimitExceeded, match="calls"):
            await tight.hold(1, 1)
        order.append("third refused")

    async with anyio.create_task_group() as group:
        group.start_soon(third)
        await anyio.wait_all_tasks_blocked()
        assert order == []
        tight.settle(first, Usage(calls=1))
        await anyio.wait_all_tasks_blocked()
        assert order == []
        tight.settle(second, Usage(calls=1))


@pytest.mark.anyio
async def test_the_reserve_is_only_for_reserved_work() -> None:
    kept = ledger(Budget(tokens=100, reserve=0.5), used=Usage(prompt_tokens=40, calls=1))
    with pytest.raises(LimitExceeded):
        await kept.hold(1, 100)
    assert isinstance(await kept.hold(1, 30, reserved=True), Hold)
    assert kept.left().spendable is False
    assert kept.left().exhausted is False


@pytest.mark.anyio
async def test_time_runs_for_everyone() -> None:
    clock = Clock()
    timed = Ledger(Budget(seconds=10.0, reserve=0.2), now=clock, spent_seconds=5.0)
    await timed.hold(1, 1)
    clock.now += 3.5  # 8.5 s in all: past 80 %, before 100 %
    with pytest.raises(LimitExceeded, match="seconds"):
        await timed.hold(1, 1)
    await timed.hold(1, 1, reserved=True)
    clock.now += 2
    with pytest.raises(LimitExceeded, match="seconds"):
        await timed.hold(1, 1, reserved=True)


@pytest.mark.anyio
async def test_cost_is_known_only_with_prices() -> None:
    priced = ledger(Budget(cost=1.0, reserve=0.0), prices=Prices(prompt=1000.0, completion=10_000.0))
    hold = await priced.hold(100, 50)  # 0.1 + 0.5 dollars
    used = priced.priced(Usage(prompt_tokens=100, completion_tokens=10, calls=1))
    assert used.cost == pytest.approx(0.2)
    priced.settle(hold, used)
    with pytest.raises(LimitExceeded, match="cost"):
        await priced.hold(100, 80)
    assert ledger(Budget()).priced(Usage(prompt_tokens=5)).cost is None
