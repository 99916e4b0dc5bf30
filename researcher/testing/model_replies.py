"""What the test server can send: a proper reply, a raw response, or any bytes with any pauses between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import Any

import msgspec

from researcher.types import ToolCall

RESET, HANG, CLOSE = "reset", "hang", "close"
"""Steps of a Wire: a TCP reset; silence until the client leaves; an orderly close."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A response with this body, whatever it is."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Wire:
    """Steps on the bare socket: bytes to send, seconds (float) to wait, RESET, HANG or CLOSE."""

    steps: Sequence[bytes | float | str]


@dataclass(slots=True)
class Reply:
    """A completion. Streamed, each of `pieces` (by default the text's words) is one chunk and one token.

    `delay` seconds pass before it, `gap` between chunks; `stall_after` chunks the stream stays silent for ever.
    `token_ids`, `prompt_ids` and `logprobs` are sent as vLLM does, when the request asks for them.
    """

    text: str = "ok"
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()
    finish: str | None = "stop"
    usage: bool = True
    prompt_tokens: int = 10
    delay: float = 0.0
    gap: float = 0.0
    stall_after: int | None = None
    pieces: Sequence[str] | None = None
    prompt_ids: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    continuous_usage: bool = False
    _cached: bytes | None = None

    @property
    def chunks(self) -> Sequence[str]:
        """The text in the pieces a stream sends."""
        if self.pieces is not None:
            return self.pieces
        words = self.text.split(" ")
        return [w + " " for w in words[:-1]] + words[-1:]

    @property
    def completion_tokens(self) -> int:
        """What the usage says."""
        return len(self.token_ids) or len(self.chunks)

    def rendered(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The whole HTTP response; kept, since load tests send one reply many times."""
        plain = not (body.get("return_token_ids") or body.get("logprobs") or body.get("n"))
        if self._cached is not None and plain:
            return self._cached
        response = render(Raw(body=msgspec.json.encode(self._whole(path, body))))
        if plain:
            self._cached = response
        return response

    def _whole(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [_wire_call(call) for call in self.tool_calls]
        choice: dict[str, Any] = {"finish_reason": self.finish}
        choice |= {"message": message} if path.endswith("/chat/completions") else {"text": self.text}
        choice |= self._extras(body, 0, None)
        n = int(body.get("n") or 1)
        reply: dict[str, Any] = {
            "id": "reply", "object": "chat.completion", "model": body.get("model"),
            "choices": [choice | {"index": i} for i in range(n)],
        }  # fmt: skip
        if self.prompt_ids and body.get("return_token_ids"):
            reply["prompt_token_ids"] = list(self.prompt_ids)
        if self.usage:
            reply["usage"] = self._usage(self.completion_tokens * n)
        return reply

    def _usage(self, tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }

    def _extras(self, body: Mapping[str, Any], start: int, stop: int | None) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if self.token_ids and body.get("return_token_ids"):
            extras["token_ids"] = list(self.token_ids[start:stop])
        if self.logprobs and body.get("logprobs"):
            extras["logprobs"] = {"content": [{"token": "t", "logprob": v} for v in self.logprobs[start:stop]]}
        return extras

    def chunk(self, body: Mapping[str, Any], i: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        """One chunk of the stream: the i-th token."""
        data: dict[str, Any] = {
            "object": "chat.completion.chunk", "model": body.get("model"),
            "choices": [{"index": 0, "delta": delta, "finish_reason": None, **self._extras(body, i, i + 1)} | more],
        }  # fmt: skip
        if i == 0 and self.prompt_ids and body.get("return_token_ids"):
            data["prompt_token_ids"] = list(self.prompt_ids)
        if self.continuous_usage:
            data["usage"] = self._usage(i + 1)
        return data


def stream_parts(reply: Reply, path: str, body: Mapping[str, Any]) -> Iterator[tuple[bytes | float | str, int]]:
    """The steps of a streamed reply, each with the completion tokens it carries."""
    yield STREAM_HEAD, 0
    yield reply.delay, 0
    for i, piece in enumerate(reply.chunks):
        if i == reply.stall_after:
            yield HANG, 0
        yield chunked(event(reply.chunk(body, i, {"content": piece}))), 1
        yield reply.gap, 0
    if reply.stall_after is not None and reply.stall_after >= len(reply.chunks):
        yield HANG, 0
    if reply.tool_calls:
        calls = [_wire_call(call) | {"index": i} for i, call in enumerate(reply.tool_calls)]
        yield chunked(event({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]})), 0
    yield chunked(event({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})), 0
    if reply.usage:
        yield chunked(event({"choices": [], "usage": reply._usage(reply.completion_tokens)})), 0
    yield chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n", 0


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(data: Any) -> bytes:
    """Data as one server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else msgspec.json.encode(data)) + b"\n\n"


def chunked(data: bytes) -> bytes:
    """Data as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def render(raw: Raw) -> bytes:
    """A response with its length."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(raw.body))} | dict(raw.headers)
    phrase = responses.get(raw.status, "Unknown")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {raw.status} {phrase}\r\n{head}\r\n".encode("latin-1") + raw.body


def _wire_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
