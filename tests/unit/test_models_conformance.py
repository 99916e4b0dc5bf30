from collections.abc import Awaitable, Callable
from contextlib import aclosing

import httpx
import pytest

from researcher.models.endpoint import Endpoint
from researcher.models.pool import Pool
from researcher.protocols import Model
from researcher.testing.model_conformance import MODEL_CHECKS
from researcher.testing.model_replies import Raw, Reply
from researcher.testing.model_server import ModelServer
from researcher.testing.scripted_model import ScriptedModel

pytestmark = pytest.mark.anyio
REPLY = Reply(
    "It is 42", reasoning="six sevens", prompt_ids=[1, 2, 3], token_ids=[4, 5, 6], logprobs=[-0.1, -0.2, -0.3]
)
PAGES = {"/v1/models": Raw(body=b'{"data": [{"id": "test", "owned_by": "vllm"}]}')}
checks = pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
Check = Callable[[Model], Awaitable[None]]


@checks
async def test_an_endpoint(check: Check) -> None:
    with ModelServer(REPLY, pages=PAGES) as server:
        async with aclosing(Endpoint(server.url)) as endpoint:
            await check(endpoint)


@checks
async def test_an_endpoint_over_a_users_httpx_client(check: Check) -> None:
    with ModelServer(REPLY, pages=PAGES) as server:
        async with httpx.AsyncClient() as client:
            async with aclosing(Endpoint(server.url, client=client)) as endpoint:
                await check(endpoint)
            assert not client.is_closed


@checks
async def test_a_pool(check: Check) -> None:
    with ModelServer(REPLY, pages=PAGES) as one, ModelServer(REPLY, pages=PAGES) as two:
        async with aclosing(Pool([Endpoint(one.url), Endpoint(two.url)])) as pool:
            await check(pool)


@checks
async def test_the_scripted_model(check: Check) -> None:
    await check(ScriptedModel(lambda request: "It is 42"))
