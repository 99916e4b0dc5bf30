"""`ServerProcess` is an MCP server started as a child: a transport for the SDK's client, and a process that ends.

The SDK's own stdio transport hands over more of the environment, takes a line of any length, and lets the server
write to our stderr. Here the environment is PATH, HOME, LANG and what the settings name; a line, and what is kept of
stderr, have caps; and at the end, also of a cancelled run, the process and its descendants are killed, those that
made a session of their own included (found by a mark in their environment, where there is a /proc).
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import mcp_types
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from researcher_tools.mcp.results import clean
from researcher_tools.mcp.settings import Opened

logger = logging.getLogger(__name__)

INHERITED = ("PATH", "HOME", "LANG")
LONGEST_LINE = 8 * 2**20
"""Bytes of one message from the server; a longer one ends the connection."""
LOGGED = 64 * 2**10
"""Bytes of stderr that reach the log; the rest is read and dropped, so that the server never waits for us."""
LINES = 4_000
"""Characters of one record of the log."""
SAID = 600
"""Characters of stderr that are kept to say why a server ended."""
CLOSING, TERMINATING = 1.0, 0.5
"""Seconds a server has to end after its stdin is closed, and after SIGTERM."""
_MARK = "RESEARCHER_MCP_CHILD"
_GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]


class ServerProcess:
    """`async with ServerProcess(name, opened) as (read, write)`: the streams that the SDK's client speaks through.

    `ended` is set when the server can say nothing more; `said` is the end of what it wrote to stderr, without secrets.
    """

    def __init__(self, name: str, opened: Opened, *, ended: anyio.Event) -> None:
        self.name, self._opened, self.ended = name, opened, ended
        self.why = ""
        self.said = ""
        self._mark = secrets.token_hex(16)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> tuple[Incoming, Outgoing]:
        async with AsyncExitStack() as stack:
            streams = await stack.enter_async_context(self._running())
            self._stack = stack.pop_all()
        return streams

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._stack.__aexit__(*error)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[tuple[Incoming, Outgoing], None]:
        server = self._opened.server
        process = await anyio.open_process(
            [server.command, *server.args],
            env=environment(server.env) | {_MARK: self._mark},
            cwd=server.cwd or None,
            start_new_session=True,
        )
        # No await before the group is entered: a cancellation in between would leave the process behind.
        to_us, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        sending, from_us = anyio.create_memory_object_stream[SessionMessage](0)
        async with to_us, received, sending, from_us, anyio.create_task_group() as group:
            group.start_soon(self._read, process, to_us)
            group.start_soon(self._write, process, from_us, to_us)
            group.start_soon(self._log, process)
            try:
                yield received, sending
            finally:
                self.ended.set()
                with anyio.CancelScope(shield=True):
                    await end(process, self._mark)
                group.cancel_scope.cancel()

    async def _read(self, process: Process, to_us: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        assert process.stdout is not None
        try:
            async with to_us:
                await self._lines(process.stdout, to_us)
        except _GONE:
            pass
        finally:
            self.ended.set()

    async def _lines(
        self, stdout: ByteReceiveStream, to_us: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        parts: list[bytes] = []
        size = 0
        async for chunk in stdout:
            first, *more = chunk.split(b"\n")
            parts.append(first)
            size += len(first)
            if size > LONGEST_LINE:
                self.why = f"it sent a message of more than {LONGEST_LINE // 2**20} MiB"
                return
            for piece in more:
                await to_us.send(self._message(b"".join(parts)))
                parts, size = [piece], len(piece)

    def _message(self, line: bytes) -> SessionMessage | Exception:
        try:
            return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            logger.debug("mcp %s: a line of %d bytes that is no message", self.name, len(line))
            return ValueError("a line that is no message")

    async def _write(
        self,
        process: Process,
        from_us: MemoryObjectReceiveStream[SessionMessage],
        to_us: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        assert process.stdin is not None
        try:
            async for message in from_us:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(line.encode() + b"\n")
        except _GONE:
            await to_us.aclose()  # the session sees an end, instead of a request that is never answered

    async def _log(self, process: Process) -> None:
        assert process.stderr is not None
        logged, line = 0, ""
        with suppress(*_GONE):
            async for chunk in process.stderr:
                # Whole lines alone: a secret that is cut in two would not be found in either half.
                *lines, line = f"{line}{chunk.decode('utf-8', 'replace')}"[-LOGGED:].split("\n")
                text = self._opened.hide("\n".join(lines))
                self.said = self._opened.hide(f"{self.said}\n{text}\n{line}")[-SAID:]
                if logged < LOGGED and text:
                    logger.info("mcp %s: %s", self.name, clean(text, LINES))
                    logged += len(chunk)
                    if logged >= LOGGED:
                        logger.info("mcp %s: more of its stderr is dropped", self.name)


def environment(named: Mapping[str, str]) -> dict[str, str]:
    """What a server's process gets: PATH, HOME, LANG, and what the settings name; nothing else of ours."""
    return {key: os.environ[key] for key in INHERITED if key in os.environ} | dict(named)


async def end(process: Process, mark: str) -> None:
    """The process is gone, and so is everything it started; takes two seconds at most, none where it obeys."""
    if process.stdin is not None:
        with suppress(*_GONE):
            await process.stdin.aclose()
    if not await _gone(process, CLOSING):
        _signal(process.pid, signal.SIGTERM)
        await _gone(process, TERMINATING)
    _signal(process.pid, signal.SIGKILL)  # also where the leader is gone: its children may not be
    await anyio.to_thread.run_sync(kill_marked, mark)
    await _gone(process, TERMINATING)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            with suppress(*_GONE):
                await pipe.aclose()
    with anyio.move_on_after(TERMINATING):
        await process.aclose()


async def _gone(process: Process, seconds: float) -> bool:
    # Not `process.wait()`: it waits for the pipes as well, which a descendant may hold open.
    with anyio.move_on_after(seconds):
        while process.returncode is None:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    return process.returncode is not None


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_marked(mark: str) -> None:
    """Kill every process of ours that has the mark in its environment, until there is none."""
    wanted = f"{_MARK}={mark}".encode()
    for _ in range(200):
        found = [pid for pid in _processes() if wanted in _environment_of(pid)]
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # one that is killed dies when it is its turn, which may be late on a busy machine


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
