import asyncio
import random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from researcher.models.congestion import LATENCY_FLOOR, Congestion, ServerLoad
from researcher.models.limiter import AdaptiveLimiter
from researcher.models.steering import read_load


def rule(start: float, maximum: float = 10_000) -> Congestion:
    return Congestion(start, minimum=1, maximum=maximum)


def play(
    congestion: Congestion, rounds: int, latency: float, *, start: float = 0.0, rate: float | None = None
) -> float:
    """Rounds of as many calls as the limit allows, each taking `latency`; with `rate` the server does no more."""
    now = start
    for _ in range(rounds):
        calls = max(32, int(congestion.limit))
        seconds = latency if rate is None else max(latency, calls / rate)
        now += seconds
        for _ in range(calls):
            congestion.succeeded(now, seconds, 1.0, saturated=True)
    return now


def test_the_limit_doubles_each_round_trip_until_the_first_sign_of_congestion() -> None:
    congestion = rule(64)
    play(congestion, 1, 0.2)
    assert congestion.limit == 128
    congestion.overloaded(now=1.0, started=0.9)
    assert congestion.limit == 64
    play(congestion, 1, 0.2, start=1.0)
    assert 64.5 < congestion.limit <= 65.1


def test_calls_refused_together_cut_once() -> None:
    congestion = rule(1024)
    for _ in range(500):
        congestion.overloaded(now=10.0, started=9.0)
    assert congestion.limit == 512
    congestion.overloaded(now=11.0, started=10.5)
    assert congestion.limit == 256


def test_without_demand_the_limit_does_not_grow() -> None:
    congestion = rule(64)
    for _ in range(1000):
        congestion.succeeded(1.0, 0.1, 1.0, saturated=False)
    assert congestion.limit == 64


def test_more_latency_without_more_throughput_is_congestion() -> None:
    congestion = rule(64)
    play(congestion, 200, 0.1, rate=1000)  # 100 calls in flight keep this server busy
    assert 64 <= congestion.limit < 700
    steady = rule(64)
    play(steady, 8, 0.1)
    assert steady.limit == 10_000, "a server that keeps its latency is given all it takes"


def test_latency_alone_leaves_a_floor() -> None:
    congestion = rule(64)
    play(congestion, 1, 0.01)
    play(congestion, 100, 10.0, start=1.0, rate=3.0)
    assert congestion.limit >= LATENCY_FLOOR


def test_a_queue_at_the_server_cuts_to_what_it_runs_and_an_empty_one_lets_it_grow() -> None:
    congestion = rule(256)
    for _ in range(20):
        congestion.steer(ServerLoad(running=100, waiting=150, kv_use=0.5), saturated=True)
    assert congestion.limit == pytest.approx(105)
    congestion.steer(ServerLoad(running=100, waiting=0, kv_use=0.5), saturated=True)
    assert congestion.limit > 110
    full = rule(256)
    full.steer(ServerLoad(running=200, waiting=0, kv_use=0.99), saturated=True)
    assert full.limit < 256
    idle = rule(256)
    idle.steer(ServerLoad(running=10, waiting=0, kv_use=0.1), saturated=False)
    assert idle.limit == 256


def test_load_is_read_from_prometheus_text() -> None:
    text = (
        "# HELP vllm:num_requests_running Number of requests\n"
        'vllm:num_requests_running{engine="0",model_name="a}b"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="a}b"} 4.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 2\n'
        'vllm:num_requests_waiting_by_reason{engine="0"} 99\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
        "vllm:broken{\npython_gc_objects 12\n"
    )
    assert read_load(text.encode()) == ServerLoad(7.0, 2.0, 0.25)
    assert read_load(b"python_gc_objects 12\n") is None


@given(st.lists(st.tuples(st.sampled_from(["ok", "refused", "out", "steer"]), st.floats(0, 1e4))))
def test_the_limit_stays_between_its_bounds(happenings: list[tuple[str, float]]) -> None:
    congestion = Congestion(64, minimum=2, maximum=500)
    now = 0.0
    for what, value in happenings:
        now += 0.1
        if what == "ok":
            congestion.succeeded(now, value, 1.0, saturated=True)
        elif what == "refused":
            congestion.overloaded(now, now - value)
        elif what == "out":
            congestion.exhausted(int(value))
        else:
            congestion.steer(ServerLoad(value, value / 2, value % 1), saturated=True)
        assert 2 <= congestion.limit <= 500


@pytest.mark.anyio
async def test_permits_are_given_first_come_first_served() -> None:
    limiter = AdaptiveLimiter(1)
    order: list[int] = []

    async def one(number: int, *, first: bool = False) -> None:
        await limiter.acquire(first=first)
        order.append(number)
        limiter.release()

    await limiter.acquire()
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(one, number)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(lambda: one(99, first=True))
        await anyio.wait_all_tasks_blocked()
        assert limiter.waiting == 6
        limiter.release()
    assert order == [99, 0, 1, 2, 3, 4]
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


@pytest.mark.anyio
async def test_a_pause_holds_everybody_and_the_longest_counts() -> None:
    limiter = AdaptiveLimiter(4)
    began = asyncio.get_running_loop().time()
    limiter.pause(0.05)
    limiter.pause(0.01)
    assert not limiter.free
    await limiter.acquire()
    assert asyncio.get_running_loop().time() - began >= 0.05
    limiter.release()


@pytest.mark.anyio
async def test_a_permit_granted_in_the_moment_of_a_cancellation_comes_back() -> None:
    limiter = AdaptiveLimiter(1)
    await limiter.acquire()
    task = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(0)
    limiter.release()  # grants the permit to the task, which has not run since
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    await limiter.acquire()
    limiter.release()


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(20))
async def test_after_any_cancellations_the_permits_are_back(seed: int) -> None:
    dice = random.Random(seed)
    limiter = AdaptiveLimiter(3)
    held = 0

    async def one() -> None:
        nonlocal held
        await limiter.acquire()
        try:
            held += 1
            assert held <= 3
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
        finally:
            held -= 1
            limiter.release()

    tasks = [asyncio.ensure_future(one()) for _ in range(40)]
    while not all(task.done() for task in tasks):
        dice.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (limiter.in_flight, limiter.waiting, held) == (0, 0, 0)
    assert limiter.free
