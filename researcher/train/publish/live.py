"""A model on a server whose weights are changed in place, while it is asked: each token says which version gave it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec

from researcher.protocols import Model, Progress
from researcher.train.publish.versioned import VersionedModel
from researcher.types import Completion, ModelRequest


class LiveModel(VersionedModel):
    """One server, one name, weights that change. `splits`: its replies say which version sampled which token, so that
    calls may be under way in a change; else a change waits for them, and new ones for it."""

    def __init__(self, model: Model, version: str, *, splits: bool) -> None:
        super().__init__(model, version)
        self.splits = splits
        self._open, self._idle = anyio.Event(), anyio.Event()
        self._open.set()
        self._under_way = 0

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        """A completion, with the version of its weights, and with spans where they changed in the middle."""
        while not (self.splits or self._open.is_set()):
            await self._open.wait()
        before = self.version
        self._under_way += 1
        try:
            completion = await self._current.model.complete(request, progress)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        return labelled(completion, before, self.version)

    async def change(self, apply: Callable[[], Awaitable[object]], version: str) -> None:
        """Call `apply`, which gives the server new weights, and go on under their name; where it raises, the name stays
        and the error goes on: what the server has then is not known."""
        if not self.splits:
            self._open = anyio.Event()
        try:
            while self._under_way and not self.splits:
                self._idle = anyio.Event()
                await self._idle.wait()
            await apply()
            self._current.name = version
        finally:
            self._open.set()


def labelled(completion: Completion, before: str, after: str) -> Completion:
    """The completion with what is known of its weights: of several versions the last one is its name, and spans say
    more; nothing where they changed and the server did not say where (a reply that was cut off)."""
    spans = completion.weight_spans
    if not spans:
        return msgspec.structs.replace(completion, weights=before if before == after else None)
    mixed = len({span.version for span in spans}) > 1
    return msgspec.structs.replace(completion, weights=spans[-1].version, weight_spans=spans if mixed else ())
