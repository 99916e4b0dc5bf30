from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from researcher.errors import ModelError, RequestRejected, ServerFault, UserError
from researcher.models.endpoint import CallLimits, Endpoint
from researcher.models.limiter import AdaptiveLimiter
from researcher.models.pool import Pool
from researcher.models.retry import RetryPolicy
from researcher.testing.model_replies import HANG, Raw, Reply, Wire
from researcher.testing.model_server import ModelServer
from researcher.types import Message, ModelRequest

pytestmark = pytest.mark.anyio
ONCE = CallLimits(retry=RetryPolicy(attempts=1))
DOWN = Raw(500)


def ask(affinity: str = "") -> ModelRequest:
    return ModelRequest(messages=(Message(role="user", content="hi"),), affinity=affinity)


class Setting:
    def __init__(self, pool: Pool, servers: list[ModelServer], endpoints: list[Endpoint]) -> None:
        self.pool, self.servers, self.endpoints, self.now = pool, servers, endpoints, 100.0

    async def asked(self, affinity: str) -> str:
        return (await self.pool.complete(ask(affinity))).message.content


@asynccontextmanager
async def replicas(*scripts: Any, permits: int = 100) -> AsyncIterator[Setting]:
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(ModelServer(script)) for script in scripts]
        ends = [
            Endpoint(s.url, "test", limits=ONCE, limiter=AdaptiveLimiter(permits, maximum=permits)) for s in servers
        ]
        at: Setting
        pool = Pool(ends, clock=lambda: at.now)
        at = Setting(pool, servers, ends)
        stack.push_async_callback(pool.aclose)
        yield at


async def test_a_conversation_stays_on_its_replica_and_conversations_spread() -> None:
    async with replicas(*(Reply(str(i)) for i in range(4))) as at:
        homes = {f"thread {i}": await at.asked(f"thread {i}") for i in range(200)}
        for affinity, home in homes.items():
            assert await at.asked(affinity) == home
        assert min(Counter(homes.values()).values()) > 20


async def test_a_replica_more_moves_only_its_own_conversations() -> None:
    names = [f"thread {i}" for i in range(200)]
    ends = [Endpoint(f"http://127.0.0.1:{port}/v1", "m") for port in range(1, 6)]

    def homes(pool: Pool) -> list[str]:
        return [pool._ranked(name)[0].endpoint.base_url for name in names]

    four, five = homes(Pool(ends[:4])), homes(Pool(ends))
    moved = [new for old, new in zip(four, five, strict=True) if old != new]
    assert set(moved) == {ends[4].base_url}
    assert 15 < len(moved) < 80


async def said(at: Setting, times: int) -> Counter[str]:
    """What is answered to equal calls at the same time."""
    found: Counter[str] = Counter()

    async def one() -> None:
        found[await at.asked("the same")] += 1

    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(one)
    return found


async def test_without_a_free_permit_the_next_replica_takes_the_call() -> None:
    async with replicas(Reply("a", delay=0.05), Reply("b", delay=0.05), permits=3) as at:
        assert await said(at, 6) == {"a": 3, "b": 3}


async def test_calls_that_wait_do_not_all_wait_for_the_same_replica() -> None:
    async with replicas(Reply("a", delay=0.01), Reply("b", delay=0.01), Reply("c"), permits=2) as at:
        at.endpoints[2].limiter.pause(60)
        assert await said(at, 20) == {"a": 10, "b": 10}


async def test_a_failing_replica_is_left_put_aside_and_tried_again_later() -> None:
    async with replicas([DOWN, Reply("0")], Reply("1")) as at:
        mine = next(name for name in map(str, range(100)) if at.pool._ranked(name)[0].endpoint is at.endpoints[0])
        assert await at.asked(mine) == "1"
        assert await at.asked(mine) == "1"
        assert at.servers[0].counts.calls == 1, "put aside: not asked again"
        at.now += 1.1
        assert await at.asked(mine) == "0"


async def test_when_all_fail_the_last_error_is_raised_and_each_was_asked_once() -> None:
    async with replicas(DOWN, DOWN, DOWN) as at:
        with pytest.raises(ServerFault):
            await at.pool.complete(ask("x"))
        assert [server.counts.calls for server in at.servers] == [1, 1, 1]


async def test_a_refused_request_is_not_offered_to_the_others() -> None:
    async with replicas(Raw(400), Raw(400)) as at:
        with pytest.raises(RequestRejected):
            await at.pool.complete(ask("x"))
        assert sum(server.counts.calls for server in at.servers) == 1


async def test_a_cancelled_call_gives_its_permit_back() -> None:
    async with replicas(Wire([HANG]), Wire([HANG])) as at:
        async with anyio.create_task_group() as group:
            for i in range(10):
                group.start_soon(at.pool.complete, ask(str(i)))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert [end.limiter.in_flight for end in at.endpoints] == [0, 0]


async def test_capabilities_are_what_all_that_answer_can_do() -> None:
    with ModelServer(Reply(), pages={"/metrics": Raw(body=b"vllm:x 1\n")}) as server:
        gone = Endpoint("http://127.0.0.1:9/v1", "test", limits=ONCE)
        pool = Pool([gone, Endpoint(server.url, "test")])
        assert (await pool.capabilities()).token_ids
        await pool.aclose()
    nobody = Pool([Endpoint("http://127.0.0.1:9/v1", "test", limits=ONCE)])
    with pytest.raises(ModelError, match="no answer"):
        await nobody.capabilities()
    await nobody.aclose()
    with pytest.raises(UserError):
        Pool([])
