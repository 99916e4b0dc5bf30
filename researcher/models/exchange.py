"""One request and its reply over a transport: bytes out, decoded structs in, every refusal a typed error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import msgspec

from researcher.errors import BadResponse, DeadlineExceeded, UserError
from researcher.models.faults import error_text, refusal, refusal_in_body
from researcher.models.sse import EventParser
from researcher.models.transport import Incoming, Transport
from researcher.models.wire import WireReply, decode_reply

REFUSAL_CAP = 65_536  # bytes of a refusal's body that are read

LINGER = 1.0  # seconds for the end of a body after [DONE], so that the connection can be used again


class Answered(NamedTuple):
    """Status and body of a plain request."""

    status: int
    body: bytes


class Exchange:
    """Requests below one base URL, with its key. Neither `repr` nor any error shows the key."""

    def __init__(self, base_url: str, transport: Transport, *, api_key: str | None, idle: float) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise UserError("the API key has characters that cannot be sent in a header; check it for line ends")
        self.base_url = base_url.rstrip("/")
        self._transport, self.key, self._idle = transport, api_key, idle
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    @property
    def root(self) -> str:
        """The server's root: the base URL without its version part."""
        return self.base_url.removesuffix("/v1")

    async def get(self, url: str, *, cap: int = 4 * 2**20) -> Answered:
        """Status and body of a GET, whatever the status."""
        async with self._transport.open("GET", url, self._headers) as reply:
            return Answered(reply.status, await _read(reply, cap))

    async def ask(self, url: str, body: bytes) -> bytes:
        """The body of the reply to a POST outside of the protocol. Raises ModelError for a refusal."""
        async with self._transport.open("POST", url, self._headers, body) as reply:
            if reply.status != 200:
                raise await self._refusal(reply)
            return await _read(reply)

    async def reply(self, path: str, body: bytes) -> WireReply:
        """The whole reply to a POST; `path` is below the base URL, or a whole URL."""
        async with self._open(path, body) as reply:
            if reply.status != 200:
                raise await self._refusal(reply)
            return self._checked(await _read(reply))

    async def stream(self, path: str, body: bytes, take: Callable[[WireReply], None], *, last: bool = False) -> None:
        """Call `take` with each chunk; return at the end, also where the stream broke off after its first chunk.

        `last`: the connection is not used again.
        """
        async with self._open(path, body, last=last) as reply:
            if reply.status != 200:
                raise await self._refusal(reply)
            if "json" in reply.headers.get("content-type", ""):  # an error, or a server that does not stream
                take(_as_chunk(self._checked(await _read(reply))))
                return
            await self._events(reply, take)

    async def _events(self, reply: Incoming, take: Callable[[WireReply], None]) -> None:
        parser, state = EventParser(), _StreamState()
        try:
            async with asyncio.timeout(None) as idle:
                while chunk := await self._next(reply, state):
                    self._take(parser.feed(chunk), state, take)
                    self._alive(idle, state)
        except TimeoutError:
            if state.done:
                return
        else:
            if not state.broken:
                self._take_last(parser.close(), state, take)
            return
        raise DeadlineExceeded(f"{self.base_url} sent nothing for {self._idle:g} s in the middle of a stream")

    async def _next(self, reply: Incoming, state: _StreamState) -> bytes:
        """The next bytes. A stream that breaks off after its first chunk just ends: the caller sees that no finish
        reason came, and has what arrived."""
        try:
            return await reply.read()
        except BadResponse as fault:
            if not (state.done or (state.taken and fault.retryable)):
                raise
            state.broken = True
            return b""

    def _alive(self, idle: asyncio.Timeout, state: _StreamState) -> None:
        now = asyncio.get_running_loop().time()
        if state.done:
            idle.reschedule(now + LINGER)
        elif state.due < now + 0.95 * self._idle:  # not for each chunk: moving a timer is dearer than reading
            state.due = now + self._idle
            idle.reschedule(state.due)

    def _take(self, events: list[bytes], state: _StreamState, take: Callable[[WireReply], None]) -> None:
        for data in events:
            if data == b"[DONE]":
                state.done = True
            elif not state.done:
                take(self._checked(data))
                state.taken = True

    def _take_last(self, events: list[bytes], state: _StreamState, take: Callable[[WireReply], None]) -> None:
        """Events whose blank line never came; half of one is no event."""
        try:
            self._take(events, state, take)
        except BadResponse:
            if not state.taken:
                raise

    def _open(self, path: str, body: bytes, *, last: bool = False) -> AbstractAsyncContextManager[Incoming]:
        headers = {**self._headers, "Connection": "close"} if last else self._headers
        url = path if path.startswith("http") else self.base_url + path
        return self._transport.open("POST", url, headers, body)

    def _checked(self, data: bytes) -> WireReply:
        reply = decode_reply(data, key=self.key)
        if reply.error is not None or (reply.choices is None and reply.object == "error"):
            found = error_text(msgspec.json.decode(data))
            if found is not None:
                raise refusal_in_body(found, where=self.base_url, key=self.key)
        return reply

    async def _refusal(self, reply: Incoming) -> Exception:
        body = await _read(reply, REFUSAL_CAP)
        return refusal(reply.status, reply.headers, body, where=self.base_url, key=self.key)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


class _StreamState:
    """Whether a chunk was taken, whether [DONE] came, whether it broke off, and when the idle deadline is due."""

    __slots__ = ("broken", "done", "due", "taken")

    def __init__(self) -> None:
        self.broken, self.done, self.taken, self.due = False, False, False, 0.0


def _as_chunk(reply: WireReply) -> WireReply:
    choices = [msgspec.structs.replace(c, delta=c.delta or c.message) for c in reply.choices or ()]
    return msgspec.structs.replace(reply, choices=choices)


async def _read(reply: Incoming, cap: int | None = None) -> bytes:
    """The body; cut at `cap` bytes where one is given."""
    parts: list[bytes] = []
    size = 0
    while chunk := await reply.read():
        parts.append(chunk)
        size += len(chunk)
        if cap is not None and size >= cap:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)
