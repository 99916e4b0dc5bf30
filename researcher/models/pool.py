"""Several replicas of one model as one Model: conversations stay where their prefix is cached, failures are left.

A call goes to the replica that its affinity ranks first (rendezvous hashing: when a replica comes or goes, only its
own conversations move). It spills over to the next where that one has no free permit, is failing, or fails under it;
where none has a free permit it waits in the shortest queue.
A replica that failed is put aside, twice as long each time, up to a minute. A 429 is no failure: it pauses that
replica's limiter, so that other calls spill over.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from researcher.errors import ConnectFault, ModelError, ServerFault, UserError
from researcher.models.endpoint import Endpoint
from researcher.protocols import Progress
from researcher.types import Capabilities, Completion, ModelRequest

ASIDE, LONGEST = 1.0, 60.0  # seconds


class _Replica:
    """An endpoint, how often it failed in a row, and until when it is put aside."""

    __slots__ = ("endpoint", "failures", "seed", "until")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.failures, self.until = endpoint, 0, 0.0
        self.seed = endpoint.base_url.encode()

    def rank(self, affinity: bytes) -> bytes:
        return hashlib.blake2b(affinity, key=self.seed[-64:], digest_size=8).digest()


class Pool:
    """A Model over replicas of the same model."""

    def __init__(self, endpoints: Sequence[Endpoint], *, clock: Callable[[], float] = time.monotonic) -> None:
        if not endpoints:
            raise UserError("a pool needs at least one model server")
        self._replicas = [_Replica(endpoint) for endpoint in endpoints]
        self._clock = clock
        self._can: Capabilities | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.uri}>"

    @property
    def uri(self) -> str:
        """The replicas' URIs with commas, without any key."""
        return ",".join(replica.endpoint.uri for replica in self._replicas)

    async def capabilities(self) -> Capabilities:
        """What every replica that answers can do. Raises the last ModelError where none answers."""
        if self._can is None:
            found: list[Capabilities] = []
            fault: ModelError | None = None
            for replica in self._replicas:
                try:
                    found.append(await replica.endpoint.capabilities())
                except (ConnectFault, ServerFault) as error:
                    fault = error
                    self._put_aside(replica)
            if not found:
                assert fault is not None
                raise fault
            self._can = _common(found)
        return self._can

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        """One completion, from whichever replica gives it. Raises ModelError where each of them failed."""
        left = self._ranked(request.affinity)
        while True:
            replica = self._choose(left)
            try:
                completion = await replica.endpoint.complete(request, progress)
            except (ConnectFault, ServerFault):
                self._put_aside(replica)
                left.remove(replica)
                if not left:
                    raise
            else:
                replica.failures = 0
                return completion

    async def aclose(self) -> None:
        """Close every replica's connections."""
        for replica in self._replicas:
            await replica.endpoint.aclose()

    def _ranked(self, affinity: str) -> list[_Replica]:
        if not affinity:
            return sorted(self._replicas, key=lambda r: r.endpoint.limiter.in_flight + r.endpoint.limiter.waiting)
        data = affinity.encode()
        return sorted(self._replicas, key=lambda replica: replica.rank(data))

    def _choose(self, ranked: Sequence[_Replica]) -> _Replica:
        now = self._clock()
        well = [replica for replica in ranked if replica.until <= now]
        if not well:
            return min(ranked, key=lambda replica: replica.until)
        return next((replica for replica in well if replica.endpoint.limiter.free), None) or min(well, key=_queue)

    def _put_aside(self, replica: _Replica) -> None:
        now = self._clock()
        if replica.until <= now:  # calls that were in flight together are one failure
            replica.until = now + min(LONGEST, ASIDE * 2**replica.failures)
            replica.failures += 1


def _queue(replica: _Replica) -> tuple[bool, float]:
    """How long a call would wait, beside other replicas: by its turns, and behind all of them where it is paused."""
    limiter = replica.endpoint.limiter
    return limiter.paused, limiter.waiting / max(1, limiter.limit)


def _common(found: Sequence[Capabilities]) -> Capabilities:
    contexts = [can.context for can in found if can.context is not None]
    return Capabilities(
        tools=all(can.tools for can in found),
        reasoning=all(can.reasoning for can in found),
        token_ids=all(can.token_ids for can in found),
        logprobs=all(can.logprobs for can in found),
        streaming=all(can.streaming for can in found),
        n=all(can.n for can in found),
        prefill=all(can.prefill for can in found),
        metrics=all(can.metrics for can in found),
        context=min(contexts) if contexts else None,
    )
