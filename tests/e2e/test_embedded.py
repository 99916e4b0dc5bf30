"""llama.cpp in this process: who can reach it, how it starts and ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from researcher.errors import ConnectFault, RequestRejected
from researcher.models import embedded as embedded_module
from researcher.models.embedded import open_embedded, open_on_all_cores
from researcher.models.endpoint import Endpoint
from researcher.models.pool import Pool
from researcher.protocols import Progress
from researcher.types import Message, ModelRequest, Sampling

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]

ASK = (Message(role="user", content="What is 6 times 7?"),)


@pytest.fixture
def copy(gguf: Path, tmp_path: Path) -> Path:
    """The shipped model as a file of its own, so that it gets a server of its own."""
    return shutil.copy(gguf, tmp_path / "copy.gguf")


async def test_it_starts_in_a_second_and_stops_with_its_last_user(copy: Path) -> None:
    began = time.process_time()
    async with open_embedded(copy) as one:
        assert time.process_time() - began < 1.0  # not of the wall: other tests may hold the cores
        async with open_embedded(copy) as two:
            assert one.uri == two.uri
            await two.complete(ModelRequest(messages=ASK))
        await one.complete(ModelRequest(messages=ASK))
        url, key = one._exchange.base_url, one._exchange.key
    assert not [file for file in embedded_module._SHELF._servers if file[0] == copy]
    late = Endpoint(url, "copy", api_key=key)
    with pytest.raises(ConnectFault):
        await late.probe()
    await late.aclose()


async def test_a_small_model_has_a_copy_on_each_core(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_module, "physical_cores", lambda: 2)
    async with open_on_all_cores(copy) as pool, open_embedded(copy) as first:
        assert isinstance(pool, Pool)
        assert len(set(pool.uri.split(","))) == 2
        assert first.uri in pool.uri, "the first copy is the file's own server"
        asked = ModelRequest(messages=ASK, sampling=Sampling(temperature=0.0))
        assert (await pool.complete(asked)).message == (await first.complete(asked)).message
    assert not [file for file in embedded_module._SHELF._servers if file[0] == copy]


async def test_rollouts_on_a_small_model_do_not_stream_and_say_the_same(copy: Path) -> None:
    sampling = Sampling(temperature=1.0, seed=3, max_tokens=120, token_ids=True, logprobs=True)
    asked = ModelRequest(messages=ASK, sampling=sampling)
    counts: list[list[str]] = [[], []]
    async with open_embedded(copy) as streams:
        one = await streams.complete(asked, Progress(on_delta=counts[0].append))
    async with open_on_all_cores(copy) as plain:
        two = await plain.complete(asked, Progress(on_delta=counts[1].append))
    assert len(counts[0]) > 10
    assert not counts[1]
    assert (one.token_ids, one.prompt_ids, one.logprobs) == (two.token_ids, two.prompt_ids, two.logprobs)
    assert (one.message, one.finish) == (two.message, two.finish)
    assert len(one.token_ids or ()) == len(one.logprobs or ()) > 10


async def test_on_many_cores_there_are_no_more_copies_than_pay_for_their_start(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_module, "physical_cores", lambda: 64)
    monkeypatch.setattr(embedded_module, "COPIES", 3)
    async with open_on_all_cores(copy) as pool:
        assert len(set(pool.uri.split(","))) == 3


@pytest.mark.parametrize("key", [None, "guessed"])
async def test_nobody_else_can_talk_to_it(embedded: Endpoint, key: str | None) -> None:
    assert embedded._exchange.base_url.startswith("http://127.0.0.1:")
    stranger = Endpoint(embedded._exchange.base_url, embedded.model, api_key=key)
    with pytest.raises(RequestRejected, match="key"):
        await stranger.complete(ModelRequest(messages=ASK))
    await stranger.aclose()


ABANDON = """
import asyncio, sys, anyio, msgspec
from pathlib import Path
from researcher.models.embedded import open_embedded
from researcher.types import Message, ModelRequest, Sampling

async def ask(endpoint):
    # not streamed, and endless: the server does not notice that its caller has gone
    plain, more = endpoint._encoder.chat, {"ignore_eos": True}
    endpoint._encoder.chat = lambda *a, **k: msgspec.json.encode(msgspec.json.decode(plain(*a, **k)) | more)
    sampling = Sampling(max_tokens=4000)
    await endpoint.complete(ModelRequest(messages=(Message(role="user", content="hi"),), sampling=sampling))

async def main(how):
    async with open_embedded(file) as endpoint, anyio.create_task_group() as group:
        group.start_soon(ask, endpoint)
        while not shelf()[0].busy():
            await anyio.sleep(0.001)
        if how == "error":
            raise KeyError("the user's own defect")
        raise SystemExit(7) if how == "exit" else KeyboardInterrupt

def shelf():
    from researcher.models import embedded
    return list(embedded._SHELF._servers.values())

file, how = Path(sys.argv[1]), sys.argv[2]
if how == "leak":
    loop = asyncio.new_event_loop()
    context = open_embedded(file)
    endpoint = loop.run_until_complete(context.__aenter__())
    task = loop.create_task(ask(endpoint))
    while not shelf()[0].busy():
        loop.run_until_complete(asyncio.sleep(0.001))
    sys.exit(7)
anyio.run(main, how)
"""


@pytest.mark.parametrize(("how", "code"), [("error", 1), ("exit", 1), ("interrupt", 1), ("leak", 7)])
def test_the_process_ends_with_calls_in_flight(gguf: Path, how: str, code: int) -> None:
    command = [sys.executable, "-W", "ignore", "-c", ABANDON, str(gguf), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = {"error": "the user's own defect", "exit": "SystemExit: 7", "interrupt": "KeyboardInterrupt", "leak": ""}
    assert said[how] in done.stderr
    assert done.returncode == code, done.stderr
    assert "terminate called" not in done.stderr


async def test_the_two_ways_to_ask_are_one_prompt(embedded_served: Any) -> None:
    """With ids it is asked through the completions route; the server's own chat route must mean the same."""
    ids = await embedded_served.endpoint.complete(embedded_served.question())
    chat = await embedded_served.endpoint.complete(embedded_served.question(Sampling(temperature=0.0, max_tokens=256)))
    assert chat.token_ids is None
    assert chat.usage.prompt_tokens == len(ids.prompt_ids)
    assert chat.message.reasoning == ids.message.reasoning
    assert chat.message.tool_calls[0].arguments == ids.message.tool_calls[0].arguments
