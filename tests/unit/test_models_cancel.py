"""A thousand early-stopped calls, and more calls than descriptors: nothing is left behind."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from researcher.models.endpoint import Endpoint
from researcher.models.limiter import AdaptiveLimiter
from researcher.protocols import Progress
from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer, Received
from researcher.types import Message, ModelRequest

pytestmark = pytest.mark.anyio
CALLS, PERMITS = 1_000, 64
ASK = (Message(role="user", content="hi"),)


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False])
async def test_a_thousand_early_stops_return_permits_close_sockets_and_count_every_token(continuous: bool) -> None:
    """Each stream goes quiet after some tokens and its caller stops it there: no token is on the way while it stops,
    so that the server's count and ours can be compared exactly."""
    dice = random.Random(7)
    stops = [dice.randrange(1, 20) for _ in range(CALLS)]

    def script(request: Received) -> Reply:
        stop = int(request.body["messages"][0]["content"])
        return Reply(pieces=["x "] * 50, stall_after=stop, continuous_usage=continuous)

    counted = 0
    with ModelServer(script) as server:
        endpoint = Endpoint(server.url, "test", limiter=AdaptiveLimiter(PERMITS, maximum=PERMITS))

        async def early(stop: int) -> None:
            nonlocal counted
            with anyio.CancelScope() as scope:
                heard = 0

                def hear(_: str) -> None:
                    nonlocal heard
                    heard += 1
                    if heard == stop:
                        scope.cancel()

                progress = Progress(on_delta=hear)
                message = Message(role="user", content=str(stop))
                await endpoint.complete(ModelRequest(messages=(message,), stream=True), progress)
            assert scope.cancelled_caught
            assert progress.estimated is not continuous
            counted += progress.completion_tokens

        async with anyio.create_task_group() as group:
            for stop in stops:
                group.start_soon(early, stop)
        assert (endpoint.limiter.in_flight, endpoint.limiter.waiting) == (0, 0)
        assert endpoint.limiter.free
        await server.until(lambda counts: counts.sockets == 0 and counts.in_flight == 0)
        assert server.counts.aborted == server.counts.calls == CALLS
        assert server.counts.peak <= PERMITS
        assert counted == server.counts.tokens == sum(stops)
        await endpoint.aclose()


@pytest.mark.slow
async def test_calls_cancelled_at_any_moment_leave_nothing_behind() -> None:
    dice = random.Random(11)
    with ModelServer(Reply("a b c d", delay=0.002, gap=0.001)) as server:
        endpoint = Endpoint(server.url, "test", limiter=AdaptiveLimiter(PERMITS, maximum=PERMITS))

        async def one() -> None:
            with anyio.move_on_after(dice.random() * 0.2):
                await endpoint.complete(ModelRequest(messages=ASK, stream=dice.random() < 0.5))

        async with anyio.create_task_group() as group:
            for _ in range(CALLS):
                group.start_soon(one)
        assert (endpoint.limiter.in_flight, endpoint.limiter.waiting) == (0, 0)
        assert (await endpoint.complete(ModelRequest(messages=ASK))).message.content == "a b c d"
        await endpoint.aclose()
        await server.until(lambda counts: counts.sockets == 0 and counts.in_flight == 0)


@contextmanager
def server_process() -> Iterator[str]:
    command = [sys.executable, "-m", "researcher.testing.model_server", "--delay", "0.01"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.mark.slow
async def test_running_out_of_descriptors_is_back_pressure_not_failure() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with server_process() as url:
        endpoint = Endpoint(url, "test", limiter=AdaptiveLimiter(1024))
        await endpoint.complete(ModelRequest(messages=ASK))
        open_now = len(os.listdir("/proc/self/fd"))
        done = []

        async def one() -> None:
            done.append(await endpoint.complete(ModelRequest(messages=ASK)))

        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 30, hard))
        try:
            async with anyio.create_task_group() as group:
                for _ in range(500):
                    group.start_soon(one)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(done) == 500
        assert endpoint.limiter.limit < 100
        await endpoint.aclose()
