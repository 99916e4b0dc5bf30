"""A model whose weights change while it is used: each reply says which version gave it."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from itertools import takewhile
from typing import Protocol

import msgspec

from researcher.errors import ModelError
from researcher.protocols import Model, Progress
from researcher.types import Capabilities, Completion, Message, ModelRequest, Sampling


class CanaryFailed(ModelError):
    """The server answers a fixed prompt as it did with the weights before: it samples old weights."""


class Opened(Protocol):
    """What opens the model of one version; closing the stack closes it."""

    async def __call__(self, stack: AsyncExitStack) -> Model: ...


class VersionedModel:
    """A Model that can be switched to new weights. Calls under way end where they began; new ones go to the new
    weights. An old version is closed when its last call has ended."""

    def __init__(self, model: Model, version: str, *, stack: AsyncExitStack | None = None) -> None:
        self._current = _Version(model, version, stack or AsyncExitStack())
        self._old: list[_Version] = []

    @property
    def uri(self) -> str:
        """That of the weights in use."""
        return self._current.model.uri

    @property
    def version(self) -> str:
        """The name of the weights in use."""
        return self._current.name

    async def capabilities(self) -> Capabilities:
        """What the server can do."""
        return await self._current.model.capabilities()

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        """A completion, with the version of its weights."""
        mine = self._current
        mine.calls += 1
        try:
            completion = await mine.model.complete(request, progress)
        finally:
            mine.calls -= 1
            await self._sweep()
        return msgspec.structs.replace(completion, weights=mine.name)

    async def switch(self, open_model: Opened, version: str) -> float:
        """Go over to new weights. How far the logprob of a fixed reply moved, in nats.

        Raises CanaryFailed where it did not move at all; then the old weights stay in use.
        """
        stack = AsyncExitStack()
        try:
            model = await open_model(stack)
            moved = await canary(self._current.model, model)
        except BaseException:
            await stack.aclose()
            raise
        self._old.append(self._current)
        self._current = _Version(model, version, stack)
        await self._sweep()
        return moved

    async def aclose(self) -> None:
        """Close all versions."""
        for each in (*self._old, self._current):
            await each.stack.aclose()
        self._old.clear()

    async def _sweep(self) -> None:
        idle = [each for each in self._old if not each.calls]
        self._old = [each for each in self._old if each.calls]
        for each in idle:
            await each.stack.aclose()


class _Version:
    def __init__(self, model: Model, name: str, stack: AsyncExitStack) -> None:
        self.model, self.name, self.stack, self.calls = model, name, stack, 0


PROMPT = (Message(role="user", content="Use the numbers 3, 5, 8 once each with + - * / to make 64."),)
LENGTH = 16
"""Tokens of the canary's reply."""


async def canary(before: Model, after: Model) -> float:
    """The largest difference of logprobs of what two models say first to one prompt, greedily, as far as they say the
    same. Raises CanaryFailed for no difference, or where a server gives no logprobs to see it by."""
    if far := apart(await said(before), await said(after)):
        return far
    raise CanaryFailed(SAME)


SAME = "the server's logprobs of a fixed reply did not change: it still samples the old weights"


async def said(model: Model) -> Completion:
    """What a model says first to the canary's prompt, greedily."""
    sampling = Sampling(temperature=0.0, max_tokens=LENGTH, seed=0, logprobs=True, token_ids=True)
    return await model.complete(ModelRequest(messages=PROMPT, sampling=sampling))


def apart(old: Completion, new: Completion) -> float:
    """How far the logprobs of two replies to the canary are apart, as `canary` has it; 0.0 where they are the same."""
    if old.logprobs is None or new.logprobs is None:
        raise CanaryFailed("the server gives no logprobs, so it cannot be seen whether it uses the new weights")
    said_old, said_new = old.token_ids or (), new.token_ids or ()
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(said_old, said_new, strict=False)))
    # The first token that differs counts: each is the likeliest of its model, and as likely as it says.
    moved = [abs(a - b) for a, b in zip(old.logprobs, new.logprobs, strict=False)]
    far = max(moved[: same + 1], default=0.0)
    return far if said_old == said_new else max(far, sys.float_info.epsilon)
