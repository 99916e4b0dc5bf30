"""Chat on a llama.cpp server with every token id on record, which its chat route cannot give while it streams.

That route refuses logprobs for a stream with tools, leaves out the tokens its parser swallows, never says what the
prompt's ids were, and notices that a caller has gone only in a stream. So the server renders the conversation with
the model's own template and tokenises it; the reply streams from the completions route, id by id; and the parts of
the message are taken apart here, in the one format of Qwen's and this package's models: a `<think>` block, text,
and `<tool_call>` blocks of JSON. Models with another format keep the chat route.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple, TypeVar

import msgspec

from researcher.errors import ServerFault
from researcher.models.exchange import Exchange
from researcher.models.requests import RequestEncoder, ServerKind
from researcher.types import Completion, FinishReason, Message, ModelRequest, Sampling, ToolCall

T = TypeVar("T", bound=msgspec.Struct)

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


class _Rendered(msgspec.Struct, frozen=True):
    prompt: str


class _Tokenized(msgspec.Struct, frozen=True):
    tokens: list[int]


class _WrittenCall(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Parsed(NamedTuple):
    """The text outside of tool calls, and the calls."""

    content: str
    calls: tuple[ToolCall, ...]


def writes_qwen(template: object) -> bool:
    """The chat template is of the format that `parsed` reads."""
    return isinstance(template, str) and "<|im_start|>" in template and "<tool_call>" in template


async def prompt_ids(exchange: Exchange, encoder: RequestEncoder, request: ModelRequest, name: str) -> tuple[int, ...]:
    """The token ids of the conversation up to the reply, from the server. Raises ModelError."""
    plain = msgspec.structs.replace(request, stream=False, sampling=Sampling())
    body = encoder.chat(plain, name, ServerKind.LLAMA_CPP)
    reply = await exchange.ask(f"{exchange.root}/apply-template", body)
    text = _decoded(reply, _Rendered, exchange).prompt
    wanted = {"content": text, "add_special": True, "parse_special": True}
    reply = await exchange.ask(f"{exchange.root}/tokenize", msgspec.json.encode(wanted))
    return tuple(_decoded(reply, _Tokenized, exchange).tokens)


def as_chat(written: Completion, prompt: tuple[int, ...], *, tools: bool) -> Completion:
    """A completion of a rendered conversation as the chat message it is."""
    message, finish = written.message, written.finish
    if tools:
        content, calls = parsed(message.content)
        message = Message(role="assistant", content=content, reasoning=message.reasoning, tool_calls=calls)
        if calls and finish is FinishReason.STOP:
            finish = FinishReason.TOOL_CALLS
    return msgspec.structs.replace(written, message=message, finish=finish, prompt_ids=prompt)


def parsed(text: str) -> Parsed:
    """The tool calls in a reply; one that is not valid JSON stays in the text, where the model's error can be seen."""
    calls: list[ToolCall] = []

    def take(block: re.Match[str]) -> str:
        try:
            written = msgspec.json.decode(block[1].encode(), type=_WrittenCall)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return block[0]
        calls.append(ToolCall(id=f"call_{secrets.token_hex(8)}", name=written.name, arguments=_text(written.arguments)))
        return ""

    content = _CALL.sub(take, text)
    return Parsed(content.strip("\n") if calls else content, tuple(calls))


def _text(raw: msgspec.Raw) -> str:
    """The arguments as the model wrote them; a JSON string that holds JSON is opened, as servers do."""
    text = bytes(raw).decode()
    return msgspec.json.decode(text, type=str) if text.startswith('"') else text


def _decoded(data: bytes, kind: type[T], exchange: Exchange) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ServerFault(f"{exchange.root} did not tokenise as llama.cpp does; is it a newer version?", 200) from None
