"""The model client's 28 faults, each against a real socket, under the numbers of the list in design/models.md."""

from __future__ import annotations

import email.utils
import gzip
import logging
import socket
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from researcher.errors import (
    BadResponse,
    ConnectFault,
    ContextTooLong,
    DeadlineExceeded,
    ModelError,
    RateLimited,
    RequestRejected,
    ServerFault,
    UserError,
)
from researcher.models.endpoint import CallLimits, Endpoint
from researcher.models.retry import RetryPolicy, retry_after
from researcher.protocols import Progress
from researcher.testing.model_replies import (
    CLOSE,
    HANG,
    RESET,
    STREAM_HEAD,
    Raw,
    Reply,
    Wire,
    chunked,
    event,
    stream_parts,
)
from researcher.testing.model_server import ModelServer, Received
from researcher.types import FinishReason, Message, ModelRequest, ToolCall

pytestmark = pytest.mark.anyio

ASK = ModelRequest(messages=(Message(role="user", content="six times seven?"),))
STREAM = ModelRequest(messages=ASK.messages, stream=True)
FAST = RetryPolicy(attempts=4, faults=4, base=0.001, cap=0.01)
KEY = "sk-very-secret-0123456789"


class Setting:
    """A server, an endpoint on it, and the back-off waits it made."""

    def __init__(self, server: ModelServer, endpoint: Endpoint, waits: list[float]) -> None:
        self.server, self.endpoint, self.waits = server, endpoint, waits


@asynccontextmanager
async def serving(script: Any, **options: Any) -> AsyncIterator[Setting]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await anyio.sleep(seconds)

    key = options.pop("api_key", None)
    limits = CallLimits(**({"retry": FAST} | options))
    with ModelServer(script) as server:
        endpoint = Endpoint(server.url, "test", api_key=key, limits=limits, sleep=sleep)
        try:
            yield Setting(server, endpoint, waits)
        finally:
            await endpoint.aclose()


def error(message: str, code: Any = None, kind: str = "") -> bytes:
    return msgspec.json.encode({"error": {"message": message, "code": code, "type": kind}})


def whole(**choice: Any) -> Raw:
    return Raw(body=msgspec.json.encode({"model": "test", "choices": [choice]}))


def delta(text: str, **more: Any) -> bytes:
    return chunked(event({"choices": [{"index": 0, "delta": {"content": text}} | more]}))


def stream(*parts: bytes | float | str) -> Wire:
    return Wire([STREAM_HEAD, *parts])


END = chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
STOP = delta("", finish_reason="stop")


async def test_01_retry_after_in_seconds_is_waited_for() -> None:
    async with serving([Raw(429, {"Retry-After": "0.15"}), Reply("42")]) as at:
        done = await at.endpoint.complete(ASK)
        assert done.message.content == "42"
        assert done.attempts == 2
        first, second = at.server.requests
        assert second.at - first.at >= 0.15


@pytest.mark.slow
async def test_02_retry_after_as_a_date_is_honoured() -> None:
    at_date = int(time.time()) + 1
    async with serving([Raw(429, {"Retry-After": email.utils.formatdate(at_date, usegmt=True)}), Reply()]) as at:
        await at.endpoint.complete(ASK)
        assert time.time() >= at_date
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=lambda: 60.0) == 40.0


async def test_03_a_wait_of_an_hour_is_an_error_and_blocks_nobody() -> None:
    async with serving([Raw(429, {"Retry-After": "3600"}, error("slow down")), Reply("other")]) as at:
        with pytest.raises(RateLimited, match="slow down") as caught:
            await at.endpoint.complete(ASK)
        assert caught.value.retry_after == 3600
        assert at.server.counts.calls == 1
        with anyio.fail_after(1):
            assert (await at.endpoint.complete(ASK)).message.content == "other"


@pytest.mark.parametrize("junk", ["-5", "soon", "NaN", "inf", "", "Thu, 99 Foo 2026"])
async def test_04_a_wait_that_makes_no_sense_becomes_a_back_off(junk: str) -> None:
    async with serving([Raw(429, {"Retry-After": junk}), Reply()]) as at:
        assert (await at.endpoint.complete(ASK)).attempts == 2
        assert len(at.waits) == 1
        assert 0 <= at.waits[0] <= FAST.cap


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_05_server_errors_are_retried_a_bounded_number_of_times(status: int) -> None:
    async with serving([Raw(status), Raw(status), Reply("42")]) as at:
        assert (await at.endpoint.complete(ASK)).attempts == 3
    async with serving(Raw(status, body=error("broken"))) as at:
        with pytest.raises(ServerFault, match="broken") as caught:
            await at.endpoint.complete(ASK)
        assert caught.value.status == status
        assert at.server.counts.calls == FAST.attempts
        assert len(set(at.waits)) == FAST.attempts - 1, "jitter: no two waits are the same"


async def test_06_an_html_error_page_is_a_server_error() -> None:
    page = Raw(502, {"Content-Type": "text/html"}, b"<html><h1>Bad Gateway</h1></html>" * 100)
    async with serving([page, Reply()]) as at:
        assert (await at.endpoint.complete(ASK)).attempts == 2
    async with serving(page) as at:
        with pytest.raises(ServerFault, match="Bad Gateway") as caught:
            await at.endpoint.complete(ASK)
        assert len(str(caught.value)) < 400


async def test_07_a_refused_connection() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        endpoint = Endpoint(f"http://127.0.0.1:{reserved.getsockname()[1]}/v1", "test", limits=CallLimits(retry=FAST))
        with pytest.raises(ConnectFault, match="connection refused"):
            await endpoint.complete(ASK)
        assert endpoint.limiter.in_flight == 0
        await endpoint.aclose()


async def test_08_a_reset_before_the_headers() -> None:
    async with serving([Wire([RESET]), Reply()]) as at:
        assert (await at.endpoint.complete(ASK)).attempts == 2
    async with serving(Wire([RESET])) as at:
        with pytest.raises(ConnectFault):
            await at.endpoint.complete(ASK)
        assert at.server.counts.calls == FAST.attempts


async def test_09_a_body_shorter_than_promised() -> None:
    short = Wire([b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices": [', CLOSE])
    async with serving([short, Reply()]) as at:
        assert (await at.endpoint.complete(ASK)).attempts == 2
    async with serving(short) as at:
        with pytest.raises(BadResponse, match="broke off"):
            await at.endpoint.complete(ASK)


async def test_10_a_hanging_server_meets_the_total_deadline() -> None:
    async with serving(Wire([HANG]), total=0.1) as at:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
            await at.endpoint.complete(ASK)
        assert 0.1 <= time.monotonic() - began < 1.1
        assert at.endpoint.limiter.in_flight == 0


async def test_10b_the_total_deadline_spans_all_attempts() -> None:
    endless = RetryPolicy(attempts=10_000, faults=10_000, base=0.01, cap=0.02)
    async with serving(Raw(500, body=error("still broken")), total=0.1, retry=endless) as at:
        with pytest.raises(DeadlineExceeded, match="still broken"):
            await at.endpoint.complete(ASK)


async def test_11_a_dripping_stream_meets_both_deadlines() -> None:
    async with serving(stream(delta("a"), HANG), idle=0.05) as at:
        progress = Progress()
        with pytest.raises(DeadlineExceeded, match=r"sent nothing for 0\.05 s"):
            await at.endpoint.complete(STREAM, progress)
        assert progress.completion_tokens == 1
    async with serving(Reply(pieces=["x"] * 10_000, gap=0.02), idle=0.1, total=0.15) as at:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.15 s"):
            await at.endpoint.complete(STREAM)


async def test_12_html_with_status_200_is_typed_and_retried() -> None:
    page = Raw(200, {"Content-Type": "text/html"}, b"<html>Welcome to the hotel's network</html>")
    for ask in (ASK, STREAM):
        async with serving([page, Reply("42")]) as at:
            done = await at.endpoint.complete(ask)
            assert (done.message.content, done.attempts) == ("42", 2)
        async with serving(page) as at:
            with pytest.raises(BadResponse):
                await at.endpoint.complete(ask)


@pytest.mark.parametrize(
    ("code", "kind", "expected", "calls"),
    [
        (429, "", RateLimited, 4),
        ("rate_limit_exceeded", "", RateLimited, 4),
        (503, "", ServerFault, 4),
        (None, "server_error", ServerFault, 4),
        (None, "overloaded_error", ServerFault, 4),
        (400, "BadRequestError", RequestRejected, 1),
        ("invalid_api_key", "", RequestRejected, 1),
        ("context_length_exceeded", "", ContextTooLong, 1),
        (None, "", ServerFault, 4),
    ],
)
async def test_13_an_error_body_with_status_200_is_typed_by_its_code(
    code: Any, kind: str, expected: type[ModelError], calls: int
) -> None:
    for ask in (ASK, STREAM):
        async with serving(Raw(200, body=error("what went wrong", code, kind))) as at:
            with pytest.raises(ModelError, match="what went wrong") as caught:
                await at.endpoint.complete(ask)
            assert type(caught.value) is expected
            assert at.server.counts.calls == calls


async def test_14_truncated_json_is_retried() -> None:
    async with serving([Raw(body=b'{"choices": [{"message": {"content": "4'), Reply("42")]) as at:
        done = await at.endpoint.complete(ASK)
        assert (done.message.content, done.attempts) == ("42", 2)


@pytest.mark.parametrize(
    "reply",
    [
        Raw(body=b"{}"),
        Raw(body=b'{"choices": null}'),
        Raw(body=b'{"choices": []}'),
        Raw(body=b'{"choices": "none"}'),
        whole(message={"role": "assistant", "content": None}, finish_reason="stop"),
        whole(finish_reason="stop"),
    ],
)
async def test_15_no_choices_or_null_content_is_typed(reply: Raw) -> None:
    async with serving([reply, Reply("42")]) as at:
        assert (await at.endpoint.complete(ASK)).attempts == 2
    async with serving(reply) as at:
        with pytest.raises(BadResponse):
            await at.endpoint.complete(ASK)


@pytest.mark.parametrize("end", [END, b"0\r\n\r\n"])
async def test_16_a_stream_without_finish_reason_is_truncated(end: bytes) -> None:
    async with serving(stream(delta("4"), delta("2"), end)) as at:
        done = await at.endpoint.complete(STREAM)
        assert done.finish is FinishReason.TRUNCATED
        assert done.message.content == "42"
        assert done.usage is None
    async with serving(whole(message={"content": "42"})) as at:
        assert (await at.endpoint.complete(ASK)).finish is FinishReason.TRUNCATED


@pytest.mark.parametrize("how", [RESET, CLOSE])
async def test_17_an_abort_in_mid_chunk_keeps_what_arrived(how: str) -> None:
    half = delta("never whole")[:-20]
    async with serving(stream(delta("4"), delta("2"), 0.02, half, 0.02, how)) as at:
        progress = Progress()
        done = await at.endpoint.complete(STREAM, progress)
        assert (done.finish, done.message.content, done.attempts) == (FinishReason.TRUNCATED, "42", 1)
        assert (progress.completion_tokens, progress.estimated) == (2, True)


async def test_18_bad_json_in_a_stream_is_typed_and_retried() -> None:
    bad = stream(delta("4"), chunked(b'data: {"choices": [{]}\n\n'), STOP, END)
    async with serving([bad, Reply("42")]) as at:
        progress = Progress()
        done = await at.endpoint.complete(STREAM, progress)
        assert (done.message.content, done.attempts) == ("42", 2)
        assert progress.completion_tokens == 2, "the first attempt's token was received too"
    async with serving(bad) as at:
        with pytest.raises(BadResponse, match="not a completion"):
            await at.endpoint.complete(STREAM)


async def test_19_an_error_event_in_mid_stream() -> None:
    broken = stream(delta("4"), chunked(event(error("engine died", 500))), END)
    async with serving([broken, Reply("42")]) as at:
        assert (await at.endpoint.complete(STREAM)).attempts == 2
    async with serving(broken) as at:
        with pytest.raises(ServerFault, match="engine died"):
            await at.endpoint.complete(STREAM)
    async with serving(stream(delta("4"), chunked(event(error("bad request", 400))), END)) as at:
        with pytest.raises(RequestRejected, match="bad request"):
            await at.endpoint.complete(STREAM)
        assert at.server.counts.calls == 1


async def test_20_utf8_split_across_chunks_stays_whole() -> None:
    text = "naïve 思考 🧠"
    payload = event({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]})
    assert b"\xf0\x9f" in payload
    async with serving(stream(*(chunked(bytes([byte])) for byte in payload), END)) as at:
        assert (await at.endpoint.complete(STREAM)).message.content == text


async def test_21_finish_reason_length_is_visible() -> None:
    for ask in (ASK, STREAM):
        async with serving(Reply("4", finish="length")) as at:
            assert (await at.endpoint.complete(ask)).finish is FinishReason.LENGTH


async def test_22_malformed_tool_arguments_are_kept_as_text_and_history_stays_valid() -> None:
    call = ToolCall(id="c1", name="search", arguments='{"query": "unclosed')
    for stream_it in (False, True):
        async with serving(Reply("", tool_calls=[call], finish="tool_calls")) as at:
            done = await at.endpoint.complete(msgspec.structs.replace(ASK, stream=stream_it))
            assert done.message.tool_calls == (call,)
            assert done.finish is FinishReason.TOOL_CALLS
            told = Message(role="tool", tool_call_id="c1", content="the arguments are not JSON")
            await at.endpoint.complete(ModelRequest(messages=(*ASK.messages, done.message, told)))
            sent = at.server.requests[-1].body["messages"][1]["tool_calls"][0]["function"]["arguments"]
            assert msgspec.json.decode(sent) == {"malformed": call.arguments}, (
                "servers refuse a history that is not JSON"
            )


@pytest.mark.slow
async def test_23_a_body_of_300_mb_is_cut_off() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 314572800\r\n\r\n"
    async with serving(Wire([head] + [b"x" * 2**20] * 300)) as at:
        with pytest.raises(BadResponse, match="larger than 33,554,432 bytes"):
            await at.endpoint.complete(ASK)
        await at.server.until(lambda counts: counts.aborted == 1)
        assert at.server.counts.calls == 1


async def test_23b_a_gzip_bomb_is_cut_off() -> None:
    bomb = Raw(200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 2**24))
    async with serving(bomb, body=2**20) as at:
        with pytest.raises(BadResponse, match="larger than"):
            await at.endpoint.complete(ASK)
    endless = stream(*(delta("x" * 1000) for _ in range(2000)), END)
    async with serving(endless, body=2**20) as at:
        with pytest.raises(BadResponse, match="larger than"):
            await at.endpoint.complete(STREAM)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("temperature must be positive"), RequestRejected),
        (401, error("wrong key", "invalid_api_key"), RequestRejected),
        (403, b"forbidden", RequestRejected),
        (404, error("no such model"), RequestRejected),
        (422, b'{"detail": [{"msg": "field required"}]}', RequestRejected),
        (307, b"", RequestRejected),
        (429, error("pay first", "insufficient_quota"), RequestRejected),
        (400, error("This model's maximum context length is 4096 tokens"), ContextTooLong),
        (400, error("too many", "context_length_exceeded"), ContextTooLong),
        (400, error("request exceeds the available context size", 400, "exceed_context_size_error"), ContextTooLong),
    ],
)
async def test_24_a_refused_request_is_not_sent_again(status: int, body: bytes, expected: type[ModelError]) -> None:
    async with serving(Raw(status, {"Location": "http://example.invalid/"}, body)) as at:
        with pytest.raises(RequestRejected) as caught:
            await at.endpoint.complete(ASK)
        assert type(caught.value) is expected
        assert at.server.counts.calls == 1
        assert at.waits == []


def everything_said(error: BaseException) -> str:
    """All text reachable from an exception: its chain, their arguments and attributes."""
    said, chain = [], [error]
    while chain:
        item = chain.pop()
        said += [*traceback.format_exception(item), repr(item), repr(item.args), repr(vars(item))]
        chain += [cause for cause in (item.__cause__, item.__context__) if cause is not None]
    return "\n".join(said)


@pytest.mark.parametrize(
    "action",
    [
        Raw(401, body=error(f"Incorrect API key provided: {KEY}. Find yours at ...")),
        Raw(500, body=f"Authorization: Bearer {KEY} {'x' * 400}".encode()),
        Raw(200, body=error(f"key {KEY} is over its limit", 429)),
        Raw(200, body=f"<html>{KEY}</html>".encode()),
        Wire([RESET]),
        Wire([f"HTTP/9 nonsense {KEY}\r\n\r\n".encode(), CLOSE]),
        Wire([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", CLOSE]),
        Reply("fine"),
    ],
)
async def test_25_the_key_is_never_in_a_log_or_an_exception(action: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(action, api_key=KEY) as at:
        for ask in (ASK, STREAM):
            try:
                said = repr(await at.endpoint.complete(ask))
            except ModelError as fault:
                said = everything_said(fault)
            assert KEY not in said
        assert at.server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in repr(at.endpoint) + at.endpoint.uri
        assert KEY not in caplog.text


def test_25b_a_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    with pytest.raises(UserError, match="line ends") as caught:
        Endpoint("http://127.0.0.1:9/v1", "test", api_key=KEY + "\n")
    assert KEY not in everything_said(caught.value)


async def test_26_one_429_pauses_all_callers_and_attempts_are_bounded() -> None:
    threads = 40

    def first_refused(request: Received) -> Raw | Reply:
        return Raw(429, {"Retry-After": "0.1"}) if request.n == 0 else Reply()

    async with serving(first_refused) as at, anyio.create_task_group() as group:
        group.start_soon(at.endpoint.complete, ASK)
        await at.server.until(lambda counts: counts.calls == 1)
        while at.endpoint.limiter.free:  # until the refusal is here
            await anyio.lowlevel.checkpoint()
        for _ in range(threads):
            group.start_soon(at.endpoint.complete, ASK)
    first, *others = at.server.requests
    assert len(others) == threads + 1
    assert all(other.at - first.at >= 0.1 for other in others)

    refused = []
    async with serving(Raw(429)) as at:

        async def one() -> None:
            with pytest.raises(RateLimited):
                await at.endpoint.complete(ASK)
            refused.append(1)

        async with anyio.create_task_group() as group:
            for _ in range(threads):
                group.start_soon(one)
        assert len(refused) == threads
        assert at.server.counts.calls == threads * FAST.attempts
        assert at.endpoint.limiter.limit < 1024 / 2


async def test_27_missing_usage_is_unknown_not_zero() -> None:
    for ask in (ASK, STREAM):
        async with serving(Reply("42", usage=False)) as at:
            assert (await at.endpoint.complete(ask)).usage is None
    async with serving(Reply("42")) as at:
        usage = (await at.endpoint.complete(ASK)).usage
        assert usage is not None
        assert usage.completion_tokens == 1
        assert usage.cost is None


async def test_28_cancel_closes_the_socket_returns_the_slot_and_counts_the_tokens() -> None:
    for ask, tokens in ((ASK, 0), (STREAM, 3)):
        action = Reply(pieces=["x"] * 10, stall_after=3) if ask.stream else Wire([HANG])
        async with serving(action) as at:
            progress = Progress()
            async with anyio.create_task_group() as group:
                group.start_soon(at.endpoint.complete, ask, progress)
                await at.server.until(lambda counts: counts.in_flight == 1)
                while progress.completion_tokens < tokens:
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert at.endpoint.limiter.in_flight == 0
            await at.server.until(lambda counts: counts.sockets == 0 and counts.aborted == 1)
            assert progress.completion_tokens == at.server.counts.tokens == tokens


async def test_a_stream_in_pieces_of_one_byte_equals_the_whole() -> None:
    reply = Reply("six times seven is 42")
    parts = list(stream_parts(reply, "/v1/chat/completions", {}))
    flat = b"".join(part for part, _ in parts if isinstance(part, bytes))
    async with serving([Wire([flat]), Wire([bytes([b]) for b in flat])]) as at:
        assert await at.endpoint.complete(STREAM) == await at.endpoint.complete(STREAM)
