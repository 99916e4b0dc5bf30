"""A streamed reply folded into a Completion, chunk by chunk; what arrived is always there, also when it breaks off."""

from __future__ import annotations

from researcher.errors import BadResponse
from researcher.models.confidence import token_confidence
from researcher.models.wire import (
    WireChoice,
    WireLogprobs,
    WireReply,
    WireToolCall,
    arguments_text,
    finish_of,
    message_of,
    own_ids,
    usage_of,
)
from researcher.protocols import Progress
from researcher.types import Alternative, Completion, ToolCall, Usage, WeightSpan


class StreamFold:
    """Takes the chunks of one stream; keeps `progress` right after each.

    `raw`: the text is kept as it was sampled. `top`: how many alternatives of each token to keep.
    """

    def __init__(self, progress: Progress, *, raw: bool = False, top: int = 0) -> None:
        self._progress, self._raw, self._top = progress, raw, top
        self._before = progress.completion_tokens, progress.prompt_tokens  # of earlier attempts
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _PartialCall] = {}
        self._ids: list[int] = []
        self._prompt_ids: list[int] | None = None
        self._own: list[tuple[int, str]] = []  # ids that came with logprobs, with the text that came with them
        self._logprobs: list[float] = []
        self._alternatives: list[tuple[Alternative, ...]] = []
        self._counted = 0
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._model: str | None = None
        self._spans: tuple[WeightSpan, ...] = ()
        self.chunks = 0

    def add(self, chunk: WireReply) -> None:
        """Take one chunk."""
        self.chunks += 1
        self._model = chunk.model or self._model
        self._prompt_ids = chunk.prompt_token_ids or self._prompt_ids
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choice(choice)
        if chunk.usage is not None:
            self._usage = usage_of(chunk.usage) or self._usage
        self._count()

    def _choice(self, choice: WireChoice) -> None:
        delta = choice.delta
        text = choice.text or (delta.text if delta else "")
        thought = delta.thought if delta else ""
        self._prompt_ids = choice.prompt_token_ids or self._prompt_ids
        self._finish = choice.finish_reason or self._finish
        self._spans = choice.spans() or self._spans  # with the last chunk, and of all of them
        new = 1 if text or thought or (delta and delta.tool_calls) else 0
        if choice.token_ids:
            self._ids += choice.token_ids
            new = len(choice.token_ids)
        if choice.logprobs:
            self._take_logprobs(choice.logprobs)
        self._counted += new
        if thought:
            self._reasoning.append(thought)
        if text:
            self._content.append(text)
        for call in (delta.tool_calls if delta else None) or ():
            self._tool_call(call)
        if self._progress.on_delta is not None and (thought or text):
            self._progress.on_delta(thought + text)

    def _take_logprobs(self, given: WireLogprobs) -> None:
        self._logprobs += given.values()
        self._own += given.own()
        alternatives = given.alternatives(self._top)
        self._alternatives += alternatives
        if alternatives and self._progress.on_confidence is not None:
            self._progress.on_confidence([token_confidence(each) for each in alternatives])

    def _tool_call(self, call: WireToolCall) -> None:
        index = call.index
        if index is None:  # some servers leave it out: an id begins a call, anything else continues the last
            index = len(self._calls) if call.id or not self._calls else next(reversed(self._calls))
        partial = self._calls.setdefault(index, _PartialCall())
        partial.id = call.id or partial.id
        if call.function is not None:
            partial.name = partial.name or call.function.name or ""
            partial.arguments.append(arguments_text(call.function.arguments))

    def _count(self) -> None:
        progress, (completion, prompt) = self._progress, self._before
        if self._usage is not None:
            progress.completion_tokens = completion + self._usage.completion_tokens
            progress.prompt_tokens = prompt + self._usage.prompt_tokens
            progress.estimated = False
        else:
            progress.completion_tokens = completion + self._counted
            progress.estimated = not (self._ids or self._own)

    @property
    def own(self) -> list[tuple[int, str]]:
        """The ids that came with logprobs, each with the text that came with it."""
        return self._own

    def completion(self, model: str) -> Completion:
        """What the stream gave; `truncated` where it never said why it ended."""
        if not self.chunks:
            raise BadResponse("the stream ended before its first chunk", retryable=True)
        calls = tuple(
            ToolCall(id=call.id or f"call_{i}", name=call.name, arguments="".join(call.arguments))
            for i, call in enumerate(self._calls.values())
        )
        ids = self._ids or own_ids([token for token, _ in self._own], self._usage)
        logprobs = self._logprobs if len(self._logprobs) == len(ids) or not (ids or self._own) else []
        return Completion(
            message=message_of("".join(self._content), "".join(self._reasoning), calls, raw=self._raw),
            finish=finish_of(self._finish, tools=bool(calls)),
            model=self._model or model,
            usage=self._usage,
            prompt_ids=tuple(self._prompt_ids) if self._prompt_ids else None,
            token_ids=tuple(ids) if ids else None,
            logprobs=tuple(logprobs) if logprobs else None,
            alternatives=tuple(self._alternatives) or None,
            weight_spans=self._spans,
        )


class _PartialCall:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id, self.name = "", ""
        self.arguments: list[str] = []
