"""A model server on a real socket, in its own thread: scripted replies of the OpenAI protocol, and every way to break.

    with ModelServer(Reply("42")) as server:
        endpoint = Endpoint(server.url, "test")

A script is one action, a list of actions (the last one repeats) or a function of the request. An action is a `Reply`
(a proper completion), a `Raw` (status, headers, body) or a `Wire` (bytes, pauses, a reset: anything). As a module it
serves one fixed-delay reply from another process: `python -m researcher.testing.model_server --delay 0.2`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import msgspec

from researcher.testing.model_replies import HANG, RESET, Raw, Reply, Wire, render, stream_parts

Action = Reply | Raw | Wire
Script = Action | Sequence[Action] | Callable[["Received"], Action]
MODEL = "test"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: `body` is decoded JSON, {} where there was none. `n` counts completions asked, from 0;
    `at` is its monotonic time."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    n: int = 0
    at: float = 0.0


@dataclass(slots=True)
class Counts:
    """What the server saw; read them when the calls are over."""

    calls: int = 0
    in_flight: int = 0
    peak: int = 0
    sockets: int = 0
    opened: int = 0
    tokens: int = 0  # completion tokens put on the wire
    aborted: int = 0  # replies whose client went away first
    metrics: int = 0


class ModelServer:
    """Serves until its `with` block ends. `requests` are the completions asked for, in order."""

    def __init__(
        self,
        script: Script = Reply(),
        *,
        models: Sequence[str] = (MODEL,),
        key: str | None = None,
        pages: Mapping[str, Raw] | None = None,
        port: int = 0,
        keep_requests: bool = True,
    ) -> None:
        """`pages` are answers to GET, by path: /version, /props, /metrics. `key`: refuse calls without it."""
        self._script, self._models, self._key = script, models, key
        self.pages = dict(pages or {})
        self._port, self._keep = port, keep_requests
        self.requests: list[Received] = []
        self.counts = Counts()
        self.connections: set[_Connection] = set()
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="model-server")

    @property
    def url(self) -> str:
        """The base URL, ending in /v1."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def until(self, condition: Callable[[Counts], bool], seconds: float = 5.0) -> None:
        """Return when the counts satisfy the condition; TimeoutError if they never do."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: condition(self.counts), seconds)

        if not await asyncio.to_thread(wait):
            raise TimeoutError(f"the server's counts stayed {self.counts}")

    def act(self, request: Received) -> Action:
        """What the script says to this request."""
        if callable(self._script):
            return self._script(request)
        if isinstance(self._script, Sequence):
            return self._script[min(request.n, len(self._script) - 1)]
        return self._script

    def answer_get(self, path: str) -> Raw:
        """The answer to a GET."""
        if path in self.pages:
            return self.pages[path]
        if path == "/v1/models":
            return Raw(body=msgspec.json.encode({"data": [{"id": name} for name in self._models]}))
        return Raw(404, body=b'{"error": {"message": "no such page"}}')

    def allowed(self, headers: Mapping[str, str]) -> bool:
        """The request has the key, or none is needed."""
        return self._key is None or headers.get("authorization") == f"Bearer {self._key}"

    def note(self, **changes: int) -> None:
        """Add to the counts."""
        with self._changed:
            for name, change in changes.items():
                setattr(self.counts, name, getattr(self.counts, name) + change)
            self.counts.peak = max(self.counts.peak, self.counts.in_flight)
            self._changed.notify_all()

    def received(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Received:
        """The request as an object, numbered and kept."""
        request = Received(
            method, path, headers, msgspec.json.decode(body) if body else {}, self.counts.calls, time.monotonic()
        )
        self.note(calls=1)
        if self._keep:
            self.requests.append(request)
        return request

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listener = socket.create_server(("127.0.0.1", self._port), backlog=16_384)
        server = await self._loop.create_server(lambda: _Connection(self), sock=listener, backlog=16_384)
        self._port = listener.getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await self._drop_all()
        server.close()  # only now: a connection accepted in the same moment would be lost with its socket open

    async def _drop_all(self) -> None:
        """Return when nothing is half-way through being accepted, played or closed."""
        quiet = 0
        while True:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for connection in list(self.connections):
                connection.abort()
            quiet = 0 if tasks or self.connections else quiet + 1
            if quiet == 5:
                return
            await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 on one socket: one request after the other."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)
        self._server.note(sockets=1, opened=1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
        self._server.connections.discard(self)
        self._server.note(sockets=-1)

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, gap, rest = self._buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = lines[0].split(" ", 2)
        self._handle(method, path, headers, rest[:length])

    def _handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        server = self._server
        if not server.allowed(headers):
            self._transport.write(
                render(Raw(401, body=b'{"error": {"message": "bad key", "code": "invalid_api_key"}}'))
            )
        elif method == "GET":
            server.note(metrics=int(path == "/metrics"))
            self._transport.write(render(server.answer_get(path)))
        else:
            request = server.received(method, path, headers, body)
            action = server.act(request)
            if isinstance(action, Reply) and not request.body.get("stream"):
                self._reply_later(action, request)
            else:
                self._task = asyncio.get_running_loop().create_task(self._play(action, request))

    def _reply_later(self, reply: Reply, request: Received) -> None:
        """The cheap path, without a task: load tests use it ten thousand times."""
        self._server.note(in_flight=1)
        asyncio.get_running_loop().call_later(reply.delay, self._reply, reply, request)

    def _reply(self, reply: Reply, request: Received) -> None:
        gone = self._transport.is_closing()
        self._server.note(in_flight=-1, aborted=int(gone), tokens=0 if gone else reply.completion_tokens)
        if not gone:
            self._transport.write(reply.rendered(request.path, request.body))

    async def _play(self, action: Action, request: Received) -> None:
        self._server.note(in_flight=1)
        aborted = 1
        try:
            if isinstance(action, Reply):
                steps = list(stream_parts(action, request.path, request.body))
            elif isinstance(action, Raw):
                steps = [(action.delay, 0), (render(action), 0)]
            else:
                steps = [(step, 0) for step in action.steps]
            for step, tokens in steps:
                if self._transport.is_closing():
                    return  # the client went away
                await self._step(step)
                self._server.note(tokens=tokens)
            aborted = 0
        finally:
            self._server.note(in_flight=-1, aborted=aborted)

    async def _step(self, step: bytes | float | str) -> None:
        if step == RESET:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif step == HANG:
            await asyncio.get_running_loop().create_future()
        elif isinstance(step, bytes):
            self._transport.write(step)
            await self._writable.wait()
        elif isinstance(step, float):
            if step:
                await asyncio.sleep(step)
        else:  # CLOSE
            self._transport.close()


def main() -> None:
    """Serve one fixed-delay reply until standard input closes; the first line printed is the URL."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds before each reply")
    parser.add_argument("--text", default="ok")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    reply = Reply(options.text, delay=options.delay)
    with ModelServer(reply, port=options.port, keep_requests=False) as server, contextlib.suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        while input_line():
            pass


def input_line() -> str:
    """One line of standard input; empty at its end."""
    import sys

    return sys.stdin.readline()


if __name__ == "__main__":
    main()
