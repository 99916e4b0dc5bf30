from collections.abc import Awaitable, Callable
from contextlib import aclosing

import httpx
import pytest

from researcher.models.endpoint import Endpoint
from researcher.models.pool import Pool
from researcher.protocols import Model
from researcher.testing.model_conformance import MODEL_CHECKS
from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer
from researcher.testing.model_speaker import Kind, Speaker
from researcher.testing.scripted_model import ScriptedModel

pytestmark = pytest.mark.anyio
SAYS = "Six sevens are 42.\nIt is 42 🙂\n"
KINDS = ("vllm", "sglang", "llama.cpp")
checks = pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
Check = Callable[[Model], Awaitable[None]]


@pytest.mark.parametrize("kind", KINDS)
@checks
async def test_an_endpoint(check: Check, kind: Kind) -> None:
    speaker = Speaker(SAYS, kind=kind, words=["sevens", "42"])
    with ModelServer(speaker, pages=speaker.pages) as server:
        async with aclosing(Endpoint(server.url)) as endpoint:
            await check(endpoint)


@checks
async def test_an_endpoint_of_which_only_the_chat_is_known(check: Check) -> None:
    with ModelServer(Reply("It is 42", reasoning="six sevens")) as server:
        async with aclosing(Endpoint(server.url)) as endpoint:
            await check(endpoint)


@checks
async def test_an_endpoint_over_a_users_httpx_client(check: Check) -> None:
    speaker = Speaker(SAYS)
    with ModelServer(speaker, pages=speaker.pages) as server:
        async with httpx.AsyncClient() as client:
            async with aclosing(Endpoint(server.url, client=client)) as endpoint:
                await check(endpoint)
            assert not client.is_closed


@checks
async def test_a_pool(check: Check) -> None:
    one, two = Speaker(SAYS), Speaker(SAYS)
    with ModelServer(one, pages=one.pages) as first, ModelServer(two, pages=two.pages) as second:
        async with aclosing(Pool([Endpoint(first.url), Endpoint(second.url)])) as pool:
            await check(pool)


@checks
async def test_the_scripted_model(check: Check) -> None:
    await check(ScriptedModel(lambda request: "It is 42"))
