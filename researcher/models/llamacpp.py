"""Replies of a llama.cpp server taken apart, for chat with every token id on record.

Its chat route cannot give them: it refuses logprobs for a stream with tools, leaves out the tokens its parser
swallows, never says what the prompt's ids were, and notices that a caller has gone only in a stream. So the reply
streams from the completions route (`continuing.py`), and its parts are taken apart here, in the one format of Qwen's
and this package's models: a `<think>` block, text, and `<tool_call>` blocks of JSON. Models with another format keep
the chat route.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

import msgspec

from researcher.models.wire import message_of
from researcher.types import Completion, FinishReason, Message, ToolCall

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


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


def as_chat(written: Completion, *, tools: bool) -> Completion:
    """A raw completion of a rendered conversation as the chat message it is."""
    message, finish = message_of(written.message.content, "", ()), written.finish
    if tools:
        content, calls = parsed(message.content)
        message = Message(role="assistant", content=content, reasoning=message.reasoning, tool_calls=calls)
        if calls and finish is FinishReason.STOP:
            finish = FinishReason.TOOL_CALLS
    return msgspec.structs.replace(written, message=message, finish=finish)


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
