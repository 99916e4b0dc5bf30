"""A vote over a thousand streamed calls that is decided early: every permit, socket and token is accounted for."""

from pathlib import Path

import anyio
import pytest

from researcher import Orchestrator
from researcher.events import BudgetCharged
from researcher.models.endpoint import Endpoint
from researcher.models.limiter import AdaptiveLimiter
from researcher.store import RunReader, run_path
from researcher.testing.model_server import ModelServer, Received, Reply
from researcher.types import Budget, Task

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
THREADS = 1_000
DECIDING = THREADS // 2 + 1


def reply(request: Received) -> Reply:
    """The first half and one answer alike; the others say a few tokens and then stay silent."""
    n = request.n - 1  # the endpoint's probe is the first
    if n < DECIDING - 1:
        return Reply("<answer>42</answer>")
    if n == THREADS - 1:  # the deciding vote comes last, when all the others have said their tokens
        return Reply("<answer>42</answer>", delay=1.0)
    return Reply(pieces=["one "] * (1 + n % 7) + ["more"], stall_after=1 + n % 7)


async def test_a_thousand_calls_stopped_early_leave_nothing_behind(tmp_path: Path) -> None:
    limiter = AdaptiveLimiter(2 * THREADS)
    with ModelServer(reply, keep_requests=False) as server:
        model = Endpoint(server.url, "test", limiter=limiter)
        await model.capabilities()
        probed = server.counts.tokens
        async with Orchestrator(model, home=tmp_path) as orchestrator:
            run = await orchestrator.start(
                Task(question="q"), strategy="vote", params={"n": THREADS}, budget=Budget(tokens=100_000_000)
            )
            with anyio.fail_after(60):
                result = await run.result()
        assert result.answer is not None
        assert (result.answer.text, result.answer.votes) == ("42", DECIDING)
        await server.until(lambda counts: counts.in_flight == 0)
        assert server.counts.calls == THREADS + 1
        assert server.counts.aborted == THREADS - DECIDING
        assert (limiter.in_flight, limiter.waiting, limiter.free) == (0, 0, True)
        assert result.usage.calls == THREADS
        assert result.usage.completion_tokens == server.counts.tokens - probed
        await model.aclose()
        await server.until(lambda counts: counts.sockets == 0)
    events = RunReader(run_path(tmp_path, run.id)).read()
    assert sum(isinstance(event.body, BudgetCharged) for event in events) == THREADS - DECIDING
