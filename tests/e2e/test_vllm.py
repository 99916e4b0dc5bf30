"""vLLM on the CPU: what only it has."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from researcher.types import Completion, Message, ModelRequest, Sampling

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
    # Hot and many, so that equal answers are no accident: a trained model is sure of itself.
    sampling = Sampling(temperature=2.0, max_tokens=64, token_ids=True, logprobs=True)
    found = await vllm_served.endpoint.complete_many(vllm_served.question(sampling), 32)
    assert len(found) == 32
    assert len({completion.token_ids for completion in found}) > 1
    assert sum(len(c.token_ids) for c in found) == sum(c.usage.completion_tokens for c in found)
    assert all(len(completion.logprobs) == len(completion.token_ids) for completion in found)


async def test_siblings_that_start_together_share_their_prefix(vllm_served: Any) -> None:
    """Why no sibling waits for the first one: vLLM finds the blocks of a prefix that it is about to compute."""
    words = " ".join(str(number) for number in range(300))  # nobody has asked this before
    request = ModelRequest(messages=(Message(role="user", content=words),), sampling=Sampling(max_tokens=4), raw=True)
    found: list[Completion] = []

    async def one() -> None:
        found.append(await vllm_served.endpoint.complete(request))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    prompt = len(found[0].prompt_ids)
    cached = sorted(completion.usage.cached_tokens for completion in found)
    assert prompt > 512
    assert cached[1] > prompt - 256, "but for the last blocks, all but one have it from the cache"


async def test_seeded_prompts_that_come_together_do_not_end_the_server(vllm_served: Any) -> None:
    """Rollouts all begin at once, each with a seed. Computed in pieces, as they do not fit into one step, such prompts
    end vLLM on a CPU."""
    found: list[Completion] = []

    async def one(seed: int) -> None:
        words = " ".join(str(seed * 1000 + number) for number in range(150))  # no two share a prefix
        sampling = Sampling(temperature=1.0, max_tokens=4, seed=seed)
        request = ModelRequest(messages=(Message(role="user", content=words),), sampling=sampling, raw=True)
        found.append(await vllm_served.endpoint.complete(request))

    async with anyio.create_task_group() as group:
        for seed in range(1, 17):
            group.start_soon(one, seed)
    assert len(found) == 16
    assert sum(completion.usage.prompt_tokens for completion in found) > 8192
