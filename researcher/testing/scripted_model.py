"""A Model that says what a test tells it to, without a network."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from researcher.errors import ModelError
from researcher.protocols import Progress
from researcher.types import Capabilities, Completion, FinishReason, Message, ModelRequest, ToolCall, Usage


class Hang:
    """A reply that never comes: the call waits until it is cancelled."""


HANG = Hang()
Said = str | ToolCall | Message | Completion | ModelError | Hang
Replies = Sequence[Said] | Callable[[ModelRequest], Said] | Callable[[ModelRequest], Awaitable[Said]]


class ScriptedModel:
    """Replies from a list (one for each call, in order) or from a function of the request (also async).

    A str is an answer, a ToolCall a call of that tool, a Message or a Completion itself, a ModelError is raised, HANG
    waits for ever. Without usage of its own a reply counts its words as tokens. A list that is used up is an error.
    """

    def __init__(
        self, replies: Replies, *, capabilities: Capabilities = Capabilities(), uri: str = "scripted:test"
    ) -> None:
        self._replies, self._capabilities, self._uri = replies, capabilities, uri
        self.requests: list[ModelRequest] = []
        self.in_flight = 0
        self.peak = 0
        self.cancelled = 0
        self.closed = False

    @property
    def uri(self) -> str:
        """The URI that names it."""
        return self._uri

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return len(self.requests)

    async def capabilities(self) -> Capabilities:
        """What the test says it can do."""
        return self._capabilities

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        """The next reply. Raises ModelError where the script says so."""
        number = len(self.requests)
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        done = False
        try:
            said = await self._next(request, number)
            done = True
        finally:
            self.in_flight -= 1
            self.cancelled += not done
        if isinstance(said, ModelError):
            raise said
        completion = _completion(said, request)
        if progress is not None and completion.usage is not None:
            progress.prompt_tokens += completion.usage.prompt_tokens
            progress.completion_tokens += completion.usage.completion_tokens
            if progress.on_delta is not None and request.stream:
                progress.on_delta(completion.message.content)
        return completion

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    async def _next(self, request: ModelRequest, number: int) -> Said:
        said: Any
        if callable(self._replies):
            said = self._replies(request)
            if inspect.isawaitable(said):
                said = await said
        elif number < len(self._replies):
            said = self._replies[number]
        else:
            raise AssertionError(f"the script has {len(self._replies)} replies, and call {number + 1} was made")
        await asyncio.sleep(0)  # a model always suspends its caller
        if isinstance(said, Hang):
            await asyncio.get_running_loop().create_future()
        return said  # type: ignore[no-any-return]


def _completion(said: Said, request: ModelRequest) -> Completion:
    if isinstance(said, Completion):
        return said
    if isinstance(said, ToolCall):
        said = Message(role="assistant", tool_calls=(said,))
    elif isinstance(said, str):
        said = Message(role="assistant", content=said)
    assert isinstance(said, Message)
    words = len(said.content.split()) + len(said.reasoning.split()) + sum(len(c.arguments) for c in said.tool_calls)
    prompt = sum(len(m.content.split()) for m in request.messages)
    return Completion(
        message=said,
        finish=FinishReason.TOOL_CALLS if said.tool_calls else FinishReason.STOP,
        model="scripted",
        usage=Usage(prompt_tokens=prompt, completion_tokens=max(1, words), calls=1),
    )
