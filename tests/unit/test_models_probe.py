import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest

from researcher.errors import ModelError
from researcher.models import probe as probing
from researcher.models.endpoint import Endpoint
from researcher.models.requests import ServerKind
from researcher.testing.model_replies import Raw, Reply
from researcher.testing.model_server import ModelServer
from researcher.types import Message, ModelRequest, Sampling

pytestmark = pytest.mark.anyio
ASK = (Message(role="user", content="hi"),)
LOAD = b'vllm:num_requests_running{e="0"} %d\nvllm:num_requests_waiting{e="0"} %d\n'


@asynccontextmanager
async def at(pages: Mapping[str, Raw], model: str | None = None) -> AsyncIterator[tuple[Endpoint, ModelServer]]:
    with ModelServer(Reply("a", token_ids=[5], prompt_ids=[1, 2], logprobs=[-0.5]), pages=pages) as server:
        endpoint = Endpoint(server.url, model)
        try:
            yield endpoint, server
        finally:
            await endpoint.aclose()


async def test_a_vllm_server() -> None:
    pages = {
        "/v1/models": Raw(body=b'{"data": [{"id": "m", "max_model_len": 4096, "owned_by": "vllm"}]}'),
        "/metrics": Raw(body=LOAD % (1, 0)),
    }
    async with at(pages) as (endpoint, server):
        can = await endpoint.capabilities()
        assert (can.token_ids, can.logprobs, can.metrics, can.n, can.context) == (True, True, True, True, 4096)
        assert (await endpoint.probe()).kind is ServerKind.VLLM
        assert endpoint.uri == f"{server.url}#m"
        done = await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(token_ids=True, logprobs=True)))
        assert (done.prompt_ids, done.token_ids, done.logprobs) == ((1, 2), (5,), (-0.5,))


async def test_a_llama_cpp_server_gives_its_slots_to_the_limiter() -> None:
    pages = {
        "/v1/models": Raw(body=b'{"data": [{"id": "m.gguf", "aliases": ["m"], "meta": {"n_ctx_train": 2048}}]}'),
        "/props": Raw(body=b'{"total_slots": 4, "default_generation_settings": {"n_ctx": 1024}}'),
    }
    async with at(pages, "m") as (endpoint, server):
        can = await endpoint.capabilities()
        assert (can.logprobs, can.token_ids, can.context) == (True, False, 1024)
        assert endpoint.limiter.limit == 6
        await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(token_ids=True)))
        assert server.requests[0].body["logprobs"] is True
        assert server.requests[0].body["model"] == "m"


async def test_an_unknown_server_is_asked_once_whether_it_has_logprobs() -> None:
    async with at({}) as (endpoint, server):
        assert (await endpoint.capabilities()).logprobs
        assert (await endpoint.capabilities()).logprobs
        assert [request.body["max_tokens"] for request in server.requests] == [1]
    with ModelServer(Raw(400, body=b'{"error": {"message": "logprobs are not supported"}}')) as server:
        endpoint = Endpoint(server.url, "test")
        assert not (await endpoint.capabilities()).logprobs
        with pytest.raises(ModelError):
            await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(logprobs=True)))
        assert "logprobs" not in server.requests[-1].body, "what the server does not have is not asked for"
        await endpoint.aclose()


async def test_a_server_without_a_list_of_models_needs_a_name() -> None:
    pages = {"/v1/models": Raw(404)}
    async with at(pages) as (endpoint, _):
        with pytest.raises(ModelError, match="name one"):
            await endpoint.capabilities()
    async with at(pages, "m") as (endpoint, _):
        await endpoint.capabilities()
        assert endpoint.model == "m"


async def test_a_page_that_is_no_list_of_models_says_what_to_do() -> None:
    for body in (b"<html>", b'{"models": []}'):
        async with at({"/v1/models": Raw(body=body)}) as (endpoint, _):
            with pytest.raises(ModelError, match="not a list of models"):
                await endpoint.capabilities()


async def test_many_first_callers_probe_once() -> None:
    async with at({"/metrics": Raw()}) as (endpoint, server):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(endpoint.capabilities)
        assert server.counts.opened <= 2
        assert server.counts.calls == 1


async def test_a_silent_server_is_left_after_the_probes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes the connection and says nothing
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "m")
        with pytest.raises(ModelError, match=r"did not answer within 0\.05 s"):
            await endpoint.capabilities()
        await endpoint.aclose()


async def test_the_servers_queue_moves_the_limit_while_calls_are_in_flight() -> None:
    looked = anyio.Event()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 3:
            looked.set()
        await anyio.lowlevel.checkpoint()

    pages = {"/metrics": Raw(body=LOAD % (10, 500))}
    with ModelServer(Reply("x", stall_after=1, pieces=["x", "y"]), pages=pages) as server:
        endpoint = Endpoint(server.url, "test", sleep=sleep)
        await endpoint.capabilities()
        before = endpoint.limiter.limit
        async with anyio.create_task_group() as group:
            group.start_soon(endpoint.complete, ModelRequest(messages=ASK, stream=True))
            await looked.wait()
            assert endpoint.limiter.limit < before * 0.7
            group.cancel_scope.cancel()
        await endpoint.aclose()
        assert set(waits) == {0.5}
        assert server.counts.metrics >= 3
