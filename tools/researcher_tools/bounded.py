"""Calls a function on strangers' bytes in a process under limits: `workers.run("module:function", data)`.

Parsers of PDF and HTML can be made to run for ever, to take all memory or to crash the interpreter. Here that costs
one child, which has none of this process's environment. The child is used again while it behaves; what it sends back
is length-prefixed JSON, never a pickle.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal, NamedTuple

import anyio
import anyio.to_thread

START_SECONDS = 60.0
JOBS = 200
"""Calls after which a child is replaced: what a library leaks must not become a document's lack of memory."""

_CHILD = Path(__file__).with_name("bounded_child.py")
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")

Exceeded = Literal["time", "memory", "output", "crash"]


class Limits(NamedTuple):
    """What one call may take: seconds of wall clock, bytes of address space, bytes of its result as JSON."""

    seconds: float = 20.0
    memory: int = 1024 * 2**20
    output: int = 32 * 2**20


class Refused(Exception):
    """Raised by the function and passed on with its words: why these bytes have no result."""


class OutOfBounds(Exception):
    """The call was ended by a limit (`limit` says which) or took its process with it; the text says so in a clause."""

    def __init__(self, limit: Exceeded, reason: str) -> None:
        super().__init__(reason)
        self.limit = limit


class FunctionFailed(Exception):
    """The function raised something of its own; `kind` is the type's name."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}" if reason else kind)
        self.kind = kind


class Workers:
    """At most `processes` children, each started when it is first needed; usable from any thread."""

    def __init__(self, processes: int = 1) -> None:
        # Invariant: a child is in `_idle` or belongs to the one call that took it out.
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(processes)
        self._turns = anyio.CapacityLimiter(processes)
        self._closed = False

    def run(self, function: str, data: bytes, limits: Limits = Limits(), **arguments: Any) -> Any:
        """What `module:function` returns for (data, **arguments), as JSON has it. Blocks.

        Raises Refused in the function's own words, OutOfBounds, FunctionFailed; OSError where no child starts.
        """
        return self._run(_Job(), function, data, limits, arguments)

    async def ask(self, function: str, data: bytes, limits: Limits = Limits(), **arguments: Any) -> Any:
        """`run` for an event loop. A cancelled call takes its child with it, so that the next one need not wait."""
        job = _Job()
        work = partial(self._run, job, function, data, limits, arguments)
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._turns)
        finally:
            job.abort()

    def close(self) -> None:
        """End the idle children; those at work end with their call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, job: _Job, function: str, data: bytes, limits: Limits, arguments: dict[str, Any]) -> Any:
        with self._places:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            child = child or _Child()
            kept = False
            try:
                job.hold(child)
                reply = child.call(function, data, limits, arguments)
                kept = reply["status"] in ("ok", "refused", "failed") and child.calls < JOBS
            finally:
                job.release()
                with self._lock:
                    kept = kept and not self._closed
                    if kept:
                        self._idle.append(child)
                if not kept:
                    child.end()
        return _value(reply, limits)


class _Job:
    """What a cancelled call can still reach: the child that works for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._aborted = False

    def hold(self, child: _Child) -> None:
        with self._lock:
            self._child = child
            if self._aborted:
                child.kill()

    def release(self) -> None:
        with self._lock:
            self._child = None

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._child is not None:
                self._child.kill()


class _Child:
    """One process. Invariant: it belongs to one call at a time, so a request and its reply are one step."""

    def __init__(self) -> None:
        path = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self.calls = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,  # an interrupt at the terminal is the host's to handle
        )
        self._finalizer = weakref.finalize(self, reap, self._process)
        try:
            self._receive(monotonic() + START_SECONDS, 4096)
        except OutOfBounds as error:
            self.end()
            raise OSError(f"the process that reads documents did not start: {error}") from error

    def call(self, function: str, data: bytes, limits: Limits, arguments: dict[str, Any]) -> dict[str, Any]:
        """The child's reply."""
        self.calls += 1
        request = {"function": function, "arguments": arguments, "seconds": limits.seconds, "memory": limits.memory}
        frames = b"".join(len(part).to_bytes(4, "big") + part for part in (json.dumps(request).encode(), data))
        end = monotonic() + limits.seconds
        try:
            self._write(frames, end)
            return self._receive(end, limits.output)
        except TimeoutError:
            raise OutOfBounds("time", f"took more than {limits.seconds:g} s") from None

    def kill(self) -> None:
        """End the process under whoever waits for it."""
        self._process.kill()

    def end(self) -> None:
        """End the process and reap it."""
        self._finalizer()

    def _write(self, data: bytes, end: float) -> None:
        assert self._process.stdin is not None
        number, view = self._process.stdin.fileno(), memoryview(data)
        os.set_blocking(number, False)
        while view:
            wait([], [number], end)
            try:
                view = view[os.write(number, view[: 2**20]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise _crash() from None

    def _receive(self, end: float, largest: int) -> dict[str, Any]:
        length = int.from_bytes(self._read(4, end), "big")
        if length > largest + 1024:  # the frame around the value
            raise OutOfBounds("output", f"gives more than {_megabytes(largest)} of text")
        reply: dict[str, Any] = json.loads(self._read(length, end))
        return reply

    def _read(self, length: int, end: float) -> bytes:
        assert self._process.stdout is not None
        number, data = self._process.stdout.fileno(), bytearray()
        while len(data) < length:
            wait([number], [], end)
            part = os.read(number, min(length - len(data), 2**20))
            if not part:
                raise _crash()
            data += part
        return bytes(data)


def wait(readable: list[int], writable: list[int], end: float) -> None:
    """Block until one of these descriptors is ready. Raises TimeoutError at `end`, by the monotonic clock."""
    poll = select.poll()  # select() would fail at descriptors above 1,023
    for number in readable:
        poll.register(number, select.POLLIN)
    for number in writable:
        poll.register(number, select.POLLOUT)
    left = end - monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def _crash() -> OutOfBounds:
    return OutOfBounds("crash", "crashed the process that read it")


def _value(reply: dict[str, Any], limits: Limits) -> Any:
    status = reply["status"]
    if status == "ok":
        return reply["value"]
    if status == "refused":
        raise Refused(reply["reason"])
    if status == "memory":
        raise OutOfBounds("memory", f"needs more than {_megabytes(limits.memory)} of memory")
    if status == "output":
        raise OutOfBounds("output", f"gives more than {_megabytes(limits.output)} of text")
    raise FunctionFailed(reply["type"], reply["reason"])


def _megabytes(number: int) -> str:
    return f"{number / 2**20:.3g} MB"


def reap(process: subprocess.Popen[bytes]) -> None:
    """End the process, wait for it and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
