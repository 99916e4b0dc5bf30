"""The replies of the OpenAI protocol as typed structs, and a Completion made of them.

Unknown fields are ignored; a known field of the wrong shape makes the whole reply undecodable, which is an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from researcher.errors import BadResponse
from researcher.models.faults import quote
from researcher.types import Completion, FinishReason, Message, ToolCall, Usage


class Wire(msgspec.Struct, frozen=True, gc=False):
    """Base of the wire structs."""


class WireFunction(Wire, frozen=True, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class WireToolCall(Wire, frozen=True, gc=False):
    id: str | None = None
    index: int | None = None
    function: WireFunction | None = None


class WireMessage(Wire, frozen=True, gc=False):
    """A message, or the part of one that a stream chunk adds."""

    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""

    @property
    def thought(self) -> str:
        return self.reasoning_content or self.reasoning or ""


class WireLogprob(Wire, frozen=True, gc=False):
    logprob: float | None = None
    id: int | None = None  # llama.cpp


class WireLogprobs(Wire, frozen=True, gc=False):
    """Chat replies fill `content`, completions `token_logprobs`."""

    content: list[WireLogprob] | None = None
    token_logprobs: list[float | None] | None = None

    def values(self) -> list[float]:
        """Logprobs in nats, one for each sampled token; empty where one is missing."""
        found = self.token_logprobs if self.content is None else [entry.logprob for entry in self.content]
        values = [value for value in found or () if value is not None]
        return values if len(values) == len(found or ()) else []

    def ids(self) -> list[int]:
        """Token ids, where each entry has one."""
        ids = [entry.id for entry in self.content or () if entry.id is not None]
        return ids if len(ids) == len(self.content or ()) else []


class WireChoice(Wire, frozen=True, gc=False):
    message: WireMessage | None = None
    delta: WireMessage | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    index: int = 0


class WireDetails(Wire, frozen=True, gc=False):
    cached_tokens: int | None = None


class WireUsage(Wire, frozen=True, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: WireDetails | None = None
    cost: float | None = None


class WireReply(Wire, frozen=True, gc=False):
    """A whole reply, or one chunk of a stream."""

    choices: list[WireChoice] | None = None
    model: str | None = None
    usage: WireUsage | None = None
    prompt_token_ids: list[int] | None = None
    error: Any = None
    object: str | None = None


_decode = msgspec.json.Decoder(WireReply).decode

_FINISH = {
    "stop": FinishReason.STOP, "eos": FinishReason.STOP, "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP, "length": FinishReason.LENGTH, "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH, "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS, "content_filter": FinishReason.CONTENT_FILTER,
}  # fmt: skip


def decode_reply(data: bytes, *, key: str | None = None) -> WireReply:
    """The reply in these bytes. Raises BadResponse (retryable) where they are not the protocol."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = f"the reply is not a completion in JSON ({error})"
    start = quote(data[:4096].decode("utf-8", "replace"), key)
    raise BadResponse(f"{why}; it begins: {start}", retryable=True)


def finish_of(reason: str | None, *, tools: bool) -> FinishReason:
    """Why it ended. A missing or unknown reason is `truncated`: a stop is never made up."""
    finish = _FINISH.get(reason or "", FinishReason.TRUNCATED)
    return FinishReason.TOOL_CALLS if tools and finish is FinishReason.STOP else finish


def usage_of(usage: WireUsage | None) -> Usage | None:
    """The server's count, or None where it gave none; the cost only where the server says it."""
    if usage is None or usage.completion_tokens is None:
        return None
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached or 0, calls=1, cost=usage.cost
    )


def arguments_text(arguments: str | dict[str, Any] | None) -> str:
    """Tool arguments as the model wrote them; a server that parsed them already is undone."""
    if isinstance(arguments, dict):
        return msgspec.json.encode(arguments).decode()
    return arguments or ""


def split_thought(content: str, reasoning: str) -> tuple[str, str]:
    """(content, reasoning) with a leading <think> block moved out of the content, where the server left it in."""
    if reasoning or not content.lstrip().startswith("<think>"):
        return content, reasoning
    thought, _, rest = content.lstrip()[len("<think>") :].partition("</think>")
    return rest.lstrip("\n"), thought.strip("\n")


def message_of(content: str, reasoning: str, calls: tuple[ToolCall, ...]) -> Message:
    """The assistant's message, without the line ends that stand between its parts.

    vLLM leaves them in, llama.cpp some of them, and a chat template writes them again: what is sent back must render
    to the tokens that were sampled.
    """
    content, reasoning = split_thought(content, reasoning)
    if reasoning:
        content, reasoning = content.lstrip("\n"), reasoning.strip("\n")
    if calls:
        content = content.rstrip("\n")
    return Message(role="assistant", content=content, reasoning=reasoning, tool_calls=calls)


def completions_of(reply: WireReply, model: str) -> list[Completion]:
    """One Completion for each choice; the reply's usage is on the first, the others carry zero."""
    if not reply.choices:
        raise BadResponse("the reply has no choices", retryable=True)
    usage = usage_of(reply.usage)
    return [
        _completion(reply, choice, model, usage if i == 0 or usage is None else Usage())
        for i, choice in enumerate(reply.choices)
    ]


def _completion(reply: WireReply, choice: WireChoice, model: str, usage: Usage | None) -> Completion:
    wire = choice.message or WireMessage(content=choice.text)
    calls = tuple(
        ToolCall(
            id=call.id or f"call_{i}", name=call.function.name or "", arguments=arguments_text(call.function.arguments)
        )
        for i, call in enumerate(wire.tool_calls or ())
        if call.function is not None
    )
    finish = finish_of(choice.finish_reason, tools=bool(calls))
    content = wire.text
    if wire.refusal and not content:
        content, finish = wire.refusal, FinishReason.CONTENT_FILTER
    elif (
        wire.content is None
        and not calls
        and finish in (FinishReason.STOP, FinishReason.TRUNCATED)
        and not wire.thought
    ):
        raise BadResponse("the reply's message has neither content nor tool calls", retryable=True)
    logprobs = choice.logprobs.values() if choice.logprobs else []
    ids = choice.token_ids or (choice.logprobs.ids() if choice.logprobs else None)
    prompt_ids = reply.prompt_token_ids or choice.prompt_token_ids
    return Completion(
        message=message_of(content, wire.thought, calls),
        finish=finish,
        model=reply.model or model,
        usage=usage,
        prompt_ids=tuple(prompt_ids) if prompt_ids else None,
        token_ids=tuple(ids) if ids else None,
        logprobs=tuple(logprobs) if logprobs else None,
    )
