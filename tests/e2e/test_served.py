"""The shipped model on real servers, llama.cpp's in this process and vLLM's on the CPU: the client, and whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest

from researcher import Orchestrator
from researcher.cli.demo import DOCUMENTS
from researcher.cli.demo import QUESTION as QUESTION_FILE
from researcher.errors import ContextTooLong
from researcher.events import Event, MessageAdded, ThreadFinished, ToolReturned
from researcher.protocols import Progress
from researcher.testing.model_conformance import MODEL_CHECKS
from researcher.types import FinishReason, Message, Outcome, Sampling

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]

QUESTION = QUESTION_FILE.read_text("utf-8").strip()
PLAIN = Sampling(temperature=0.0, max_tokens=256)


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_promises_of_a_model(check: Any, served: Any) -> None:
    endpoint = served.again()
    try:
        await check(endpoint)
    finally:
        await endpoint.aclose()


async def test_a_tool_call_and_the_reasoning_come_apart(served: Any) -> None:
    done = await served.endpoint.complete(served.question())
    assert done.finish is FinishReason.TOOL_CALLS
    [call] = done.message.tool_calls
    assert call.name == "search"
    assert json.loads(call.arguments)["query"]
    assert done.message.content == ""
    assert done.message.reasoning
    assert "<" not in done.message.reasoning


@pytest.mark.parametrize("stream", [False, True])
async def test_ids_and_logprobs_are_the_servers_own(served: Any, stream: bool) -> None:
    request = served.question(stream=stream)
    done = await served.endpoint.complete(request)
    assert done.usage is not None
    assert done.prompt_ids == await served.tokenized(request.messages, request.tools)
    assert len(done.prompt_ids) == done.usage.prompt_tokens
    assert len(done.token_ids) == len(done.logprobs) == done.usage.completion_tokens
    assert all(value <= 0.0 for value in done.logprobs)


async def test_whole_and_streamed_are_the_same(served: Any) -> None:
    whole = await served.endpoint.complete(served.question())
    streamed = await served.endpoint.complete(served.question(stream=True))
    plain = await served.endpoint.complete(served.question(PLAIN, stream=True))
    assert streamed.token_ids == whole.token_ids
    for other in (streamed, plain):
        assert other.message.reasoning == whole.message.reasoning
        assert [(c.name, c.arguments) for c in other.message.tool_calls] == [
            (c.name, c.arguments) for c in whole.message.tool_calls
        ]


async def test_the_second_turn_continues_the_path_of_the_first(served: Any) -> None:
    first = served.question()
    called = await served.endpoint.complete(first)
    second = served.follow(first, called)
    answered = await served.endpoint.complete(second)
    path = called.prompt_ids + called.token_ids
    assert answered.prompt_ids[: len(path)] == path
    assert answered.prompt_ids == await served.tokenized(second.messages, second.tools)


@pytest.mark.parametrize("tokens", [True, False], ids=["ids", "text"])
async def test_a_cancelled_call_leaves_the_server(served: Any, tokens: bool) -> None:
    endpoint = served.again(endless=True)
    sampling = Sampling(temperature=1.0, max_tokens=1500, token_ids=tokens, logprobs=tokens)
    # Without tools: a server that reads a tool call out of the stream sends nothing while it does.
    asked, progress = msgspec.structs.replace(served.question(sampling, stream=True), tools=()), Progress()
    async with anyio.create_task_group() as group:
        group.start_soon(endpoint.complete, asked, progress)
        await served.until(lambda: progress.completion_tokens >= 20)
        assert await served.running() == 1
        group.cancel_scope.cancel()
    assert endpoint.limiter.in_flight == 0
    await served.until_idle()
    assert 20 <= progress.completion_tokens < 1500
    await endpoint.aclose()


async def test_a_conversation_beyond_the_window_is_told_apart(served: Any) -> None:
    request = served.question()
    long = Message(role="user", content="Velar Works " * 6000)
    with pytest.raises(ContextTooLong):
        await served.endpoint.complete(msgspec.structs.replace(request, messages=(*request.messages, long)))


async def test_a_run_has_the_servers_ids_along_every_path(served: Any, recording: Any, tmp_path: Path) -> None:
    model = recording(served.endpoint)
    async with Orchestrator(model, home=tmp_path, documents=DOCUMENTS) as orchestrator:
        run = await orchestrator.start(QUESTION, strategy="research", params={"samples": 4}, seed=3)
        events = [event async for event in run.events()]
        result = await run.result()
    assert result.outcome is Outcome.ANSWERED, result.detail
    assert sum(isinstance(e.body, ToolReturned) and e.body.status == "ok" for e in events) >= 4
    assert {e.body.outcome for e in events if isinstance(e.body, ThreadFinished)} <= {
        Outcome.ANSWERED,
        Outcome.EXHAUSTED,
        Outcome.CANCELLED,
    }
    paths = paths_of(events)
    assert sum(path.turns > 1 for path in paths.values()) >= 4
    seen = set()
    for request, completion in model.calls:
        assert completion.prompt_ids == await served.tokenized(request.messages, request.tools)
        assert len(completion.logprobs) == len(completion.token_ids)
        seen.add(completion.prompt_ids + completion.token_ids)
    assert {path.ids for path in paths.values()} <= seen, "a recorded path is not what the server saw"
    assert not any(path.rebased for path in paths.values()), "a turn did not continue the path of the turn before"


class Recorded(NamedTuple):
    """The ids along a thread's path, its model turns, and whether one of them began anew."""

    ids: tuple[int, ...]
    turns: int
    rebased: bool


def paths_of(events: list[Event]) -> dict[str, Recorded]:
    """The token path of each thread that sampled, from the event log alone."""
    paths: dict[str, Recorded] = {}
    for event in events:
        if isinstance(event.body, MessageAdded) and event.body.tokens is not None and event.thread is not None:
            tokens, before = event.body.tokens, paths.get(event.thread, Recorded((), 0, False))
            kept = () if tokens.rebased else before.ids
            paths[event.thread] = Recorded(kept + tokens.ids, before.turns + 1, before.rebased or tokens.rebased)
    return paths
