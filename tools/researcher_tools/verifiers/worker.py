"""A process of our own that answers JSON lines, and is killed and replaced when it is late: `await worker.ask({...})`.

For checks in which a hostile answer could take for ever or all memory, in native loops that no exception ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread

from researcher_tools.bounded import reap, wait

START_SECONDS = 120.0
MEMORY = 2 * 2**30
"""Bytes of address space that the process may have."""

Reply = dict[str, Any]


class Worker:
    """A process that runs a module and starts with the first question; one question at a time."""

    def __init__(self, module: str, seconds: float, what: str) -> None:
        self._module, self._seconds, self._what = module, seconds, what
        self._process: subprocess.Popen[bytes] | None = None
        # Invariant: a question and its reply are one step; two threads never share the pipe.
        self._lock = threading.Lock()
        self._turn = anyio.CapacityLimiter(1)

    async def ask(self, question: Reply) -> Reply:
        """The process's reply. Raises TimeoutError, OSError, ValueError.

        A cancelled question takes the process with it, so that the next one need not wait.
        """
        async with self._turn:
            settled = False
            try:
                reply = await anyio.to_thread.run_sync(self._ask, question, abandon_on_cancel=True)
                settled = True
            finally:
                if not settled:
                    self._abort()
        return reply

    async def aclose(self) -> None:
        """End the process; it is started again if it is needed again."""
        await anyio.to_thread.run_sync(self._stop)

    def _ask(self, question: Reply) -> Reply:
        with self._lock:
            process = self._started()
            settled = False
            try:
                assert process.stdin is not None
                process.stdin.write((json.dumps(question) + "\n").encode("ascii"))
                process.stdin.flush()
                reply = self._reply(process, self._seconds)
                settled = True
            finally:
                if not settled:
                    self._end()
            return reply

    def _abort(self) -> None:
        """End the process under whoever waits for it."""
        if (process := self._process) is not None:
            process.kill()

    def _stop(self) -> None:
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._process = process
        weakref.finalize(self, reap, process)
        try:
            self._reply(process, START_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            self._end()
            raise OSError(f"the process of {self._what} did not start: {error}") from error
        return process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float) -> Reply:
        assert process.stdout is not None
        number, end, data = process.stdout.fileno(), monotonic() + seconds, b""
        while not data.endswith(b"\n"):
            try:
                wait([number], [], end)
            except TimeoutError:
                raise TimeoutError(f"{self._what} did not end within {seconds:g} s") from None
            part = os.read(number, 4096)
            if not part:
                raise OSError(f"the process of {self._what} died on this answer")
            data += part
        reply: Reply = json.loads(data)
        return reply

    def _end(self) -> None:
        if self._process is not None:
            reap(self._process)
            self._process = None


def answer_lines(prepare: Callable[[], Callable[[Reply], Reply]]) -> None:
    """The process's side: one JSON line in, one out, until the input ends. Its memory is limited first.

    What is printed by whatever runs here is no reply.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit()
    answer = prepare()
    print("{}", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on this platform; the deadline still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
