"""The replies of the OpenAI protocol as typed structs, and a Completion made of them.

Unknown fields are ignored; a known field of the wrong shape makes the whole reply undecodable, which is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from researcher.errors import BadResponse
from researcher.models.faults import quote
from researcher.protocols import Progress
from researcher.types import Alternative, Completion, FinishReason, Message, ToolCall, Usage, WeightSpan


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
    token: str = ""
    logprob: float | None = None
    id: int | None = None  # llama.cpp
    top_logprobs: list[WireLogprob] | None = None


class WireLogprobs(Wire, frozen=True, gc=False):
    """Chat replies fill `content`, completions `token_logprobs` and, for each token, logprobs by text."""

    content: list[WireLogprob] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: Any = None

    def values(self) -> list[float]:
        """Logprobs in nats, one for each sampled token; empty where one is missing."""
        found = self.token_logprobs if self.content is None else [entry.logprob for entry in self.content]
        values = [value for value in found or () if value is not None]
        return values if len(values) == len(found or ()) else []

    def ids(self) -> list[int]:
        """Token ids, where each entry has one."""
        ids = [token for token, _ in self.own()]
        return ids if len(ids) == len(self.content or ()) else []

    def own(self) -> list[tuple[int, str]]:
        """Token ids with the text that came with each: llama.cpp's."""
        return [(entry.id, entry.token) for entry in self.content or () if entry.id is not None]

    def alternatives(self, top: int) -> list[tuple[Alternative, ...]]:
        """For each sampled token the `top` most likely ones, the most likely first; empty where one has none."""
        found = [_most_likely(pairs, top) for pairs in self._candidates()] if top else []
        return found if all(found) else []

    def _candidates(self) -> Iterator[list[tuple[str, float]]]:
        if self.content is not None:
            for entry in self.content:
                listed = entry.top_logprobs or ()
                yield [(each.token, each.logprob) for each in listed if each.logprob is not None]
        elif isinstance(self.top_logprobs, list):
            for by_text in self.top_logprobs:
                pairs = by_text.items() if isinstance(by_text, dict) else ()
                yield [(str(text), float(value)) for text, value in pairs if isinstance(value, int | float)]


def _most_likely(pairs: list[tuple[str, float]], top: int) -> tuple[Alternative, ...]:
    """Servers add the sampled token where it is not one of them, so there can be one too many."""
    pairs.sort(key=lambda pair: -pair[1])
    return tuple([Alternative(token=text, logprob=value) for text, value in pairs[:top]])


class WireSpan(Wire, frozen=True, gc=False):
    """The tokens [start, end) of a reply, and the version of the weights that sampled them (vLLM)."""

    version: str
    start: int
    end: int


class WireChoice(Wire, frozen=True, gc=False):
    message: WireMessage | None = None
    delta: WireMessage | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    index: int = 0
    weight_versions: list[WireSpan] | None = None

    def spans(self) -> tuple[WeightSpan, ...]:
        """Who sampled which tokens, where the server says so; spans without a token are left out."""
        return tuple([WeightSpan(s.version, s.start, s.end) for s in self.weight_versions or () if s.start < s.end])


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


def count(progress: Progress | None, completion: Completion) -> None:
    """Add the usage of a whole reply to the progress."""
    if progress is not None and completion.usage is not None:
        progress.prompt_tokens += completion.usage.prompt_tokens
        progress.completion_tokens += completion.usage.completion_tokens


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


def message_of(content: str, reasoning: str, calls: tuple[ToolCall, ...], *, raw: bool = False) -> Message:
    """The assistant's message, without the line ends that stand between its parts; `raw`: just as it came.

    vLLM leaves them in, llama.cpp some of them, and a chat template writes them again: what is sent back must render
    to the tokens that were sampled.
    """
    if raw:
        return Message(role="assistant", content=content, reasoning=reasoning, tool_calls=calls)
    content, reasoning = split_thought(content, reasoning)
    if reasoning:
        content, reasoning = content.lstrip("\n"), reasoning.strip("\n")
    if calls:
        content = content.rstrip("\n")
    return Message(role="assistant", content=content, reasoning=reasoning, tool_calls=calls)


def own_ids(ids: list[int], usage: Usage | None) -> list[int]:
    """Token ids that came with logprobs, if they are all: llama.cpp gives none for a token in the middle of a
    character."""
    return ids if usage is None or usage.completion_tokens == len(ids) else []


def own_of(reply: WireReply) -> list[tuple[int, str]]:
    """The token ids that came with the logprobs of the first choice, each with the text that came with it."""
    given = reply.choices[0].logprobs if reply.choices else None
    return given.own() if given else []


_SAID = (FinishReason.STOP, FinishReason.TRUNCATED)


def completions_of(reply: WireReply, model: str, *, raw: bool = False, top: int = 0) -> list[Completion]:
    """One Completion for each choice; the reply's usage is on the first, the others carry zero.

    `raw`: the text is kept as it was sampled. `top`: how many alternatives of each token to keep.
    """
    if not reply.choices:
        raise BadResponse("the reply has no choices", retryable=True)
    usage = usage_of(reply.usage)
    return [
        _completion(reply, choice, model, usage if i == 0 or usage is None else Usage(), raw=raw, top=top)
        for i, choice in enumerate(reply.choices)
    ]


def _completion(
    reply: WireReply, choice: WireChoice, model: str, usage: Usage | None, *, raw: bool, top: int
) -> Completion:
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
    elif not (raw or calls or wire.thought or wire.content is not None) and finish in _SAID:
        raise BadResponse("the reply's message has neither content nor tool calls", retryable=True)
    given = choice.logprobs or WireLogprobs()
    ids = choice.token_ids or own_ids(given.ids(), usage if len(reply.choices or ()) == 1 else None)
    logprobs = given.values()
    prompt_ids = reply.prompt_token_ids or choice.prompt_token_ids
    return Completion(
        message=message_of(content, wire.thought, calls, raw=raw),
        finish=finish,
        model=reply.model or model,
        usage=usage,
        prompt_ids=tuple(prompt_ids) if prompt_ids else None,
        token_ids=tuple(ids) if ids else None,
        logprobs=tuple(logprobs) if logprobs else None,
        alternatives=tuple(given.alternatives(top)) or None,
        weight_spans=choice.spans(),
    )
