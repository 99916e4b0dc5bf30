"""vLLM on the CPU: what only it has."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from researcher.types import Sampling

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]


async def test_the_limiter_follows_the_servers_metrics(vllm_served: Any) -> None:
    endpoint = vllm_served.again(endless=True)
    assert (await endpoint.capabilities()).metrics
    asked = vllm_served.question(Sampling(temperature=1.0, max_tokens=1500), stream=True)
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(endpoint.complete, asked)
        await vllm_served.until(lambda: endpoint.limiter._rule.steered)
        assert endpoint.limiter.in_flight == 8
        group.cancel_scope.cancel()
    assert endpoint.limiter.in_flight == 0
    await vllm_served.until_idle()
    await endpoint.aclose()


async def test_several_answers_of_one_request_are_siblings(vllm_served: Any) -> None:
    """One prompt, n continuations, each with its ids: what a group of rollouts is made of."""
    sampling = Sampling(
        temperature=2.0, max_tokens=64, token_ids=True, logprobs=True
    )  # a trained model is sure of itself
    found = await vllm_served.endpoint.complete_many(vllm_served.question(sampling), 4)
    assert len(found) == 4
    assert len({completion.token_ids for completion in found}) > 1
    assert sum(len(c.token_ids) for c in found) == sum(c.usage.completion_tokens for c in found)
    assert all(len(completion.logprobs) == len(completion.token_ids) for completion in found)
