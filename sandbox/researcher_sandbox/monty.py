"""The embedded sandbox: a small Python interpreter in pooled worker processes, with every limit set.

It needs no container and starts in milliseconds, and pays with the language: no third-party modules and only a
part of the standard library. The interpreter bounds time, heap, recursion and host calls itself, but neither output
nor the size of a returned value; so output is capped where it arrives (the worker is killed) and no value ever
comes back: a script prints what it wants to show.

The pool's blocking face in worker threads, not its asyncio one: with that one a process was seen to abort at exit,
when a native thread came back to an interpreter that was shutting down.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import threading
from contextlib import ExitStack, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread

from researcher.errors import SandboxFault, UserError
from researcher.protocols import ExecRequest, ExecResult

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError, MontySession

MAX_CODE = 64 * 1024
"""Characters of a script."""

RECURSION = 500
"""Depth of calls."""

MAX_ERROR = 2_000
"""Characters of an error's text."""

_GRACE = 1.0
"""Seconds beyond its limit after which the pool kills a worker."""

_MODULE = re.compile(r"No module named '([\w.]+)'")


class MontySandbox:
    """A `Sandbox` on pydantic-monty; the pool starts with the first script and holds `processes` workers at most."""

    def __init__(self, *, processes: int = 2) -> None:
        if importlib.util.find_spec("pydantic_monty") is None:
            raise UserError("The embedded sandbox is not installed; pip install 'researcher-orchestrator[local]'.")
        self._processes = processes
        self._turns = anyio.CapacityLimiter(processes)
        self._pool: Monty | None = None
        self._open = ExitStack()
        # Invariant: the pool is made once, by whichever job thread comes first.
        self._making = threading.Lock()

    async def run(self, request: ExecRequest) -> ExecResult:
        """What the script printed and how it ended. A cancelled run kills its worker."""
        refused = _refuse(request)
        if refused is not None:
            return refused
        job = _Job(request)
        try:
            return await anyio.to_thread.run_sync(
                lambda: job.run(self._started()), limiter=self._turns, abandon_on_cancel=True
            )
        finally:
            job.kill()

    async def aclose(self) -> None:
        """Stop the workers."""
        self._pool = None
        await anyio.to_thread.run_sync(self._open.close)

    def _started(self) -> Monty:
        import pydantic_monty

        with self._making:
            if self._pool is None:
                try:
                    pool = pydantic_monty.Monty(
                        max_processes=self._processes,
                        checkout_timeout=60.0,
                        feed_duration_limit_grace=_GRACE,
                        turn_duration_limit_grace=_GRACE,
                    )
                    self._pool = self._open.enter_context(pool)
                except (OSError, RuntimeError, pydantic_monty.MontyError) as error:
                    raise SandboxFault(f"the embedded sandbox did not start: {error}") from error
            return self._pool


class _Job:
    """One script in one worker: run in a thread, killed from any."""

    def __init__(self, request: ExecRequest) -> None:
        self._request = request
        self._parts: list[str] = []
        self._room = request.output
        self._flooded = False
        # Invariant: `_worker` is the process that runs this job now, or None; it is killed under the lock only.
        self._lock = threading.Lock()
        self._worker: int | None = None
        self._dead = False

    def kill(self) -> None:
        """End the job: its worker if it has one now, else as soon as it gets one."""
        with self._lock:
            self._dead = True
            if self._worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._worker, signal.SIGKILL)

    def run(self, pool: Monty) -> ExecResult:
        """The result, whatever the script did."""
        from pydantic_monty import MontyError

        began = perf_counter()
        status, error = "ok", ""
        try:
            with self._checkout(pool) as session:
                self._attach(session)
                try:
                    # The trailing None: no value of the script is ever converted in this process.
                    session.feed_run(f"{self._request.code}\nNone", print_callback=self._print)
                finally:
                    self._detach()
        except MontyError as failure:
            status, error = self._failure(failure)
        except (OSError, RuntimeError) as failure:  # no worker within the deadline, or none could be started
            raise SandboxFault(f"the embedded sandbox broke: {failure}") from failure
        if self._flooded:
            status, error = "output_limit", f"more than {self._request.output} characters of output"
        return ExecResult(status, "".join(self._parts), error, perf_counter() - began, self._flooded)

    def _checkout(self, pool: Monty) -> MontySession:
        request = self._request
        return pool.checkout(
            limits={
                "max_feed_duration_secs": request.seconds,
                "max_turn_duration_secs": request.seconds,
                "max_memory": request.memory,
                "max_recursion_depth": RECURSION,
                "max_suspensions": 100,
                "max_total_sleep_secs": 0.0,
                "gc_interval": 100_000,
            },
            # A script has nobody to wait for: its sleeps take no time.
            os_policy={"sleep": "zero"},
        )

    def _attach(self, session: MontySession) -> None:
        with self._lock:
            self._worker = session.worker_pid
            dead = self._dead
        if dead:
            self.kill()

    def _detach(self) -> None:
        with self._lock:
            self._worker = None

    def _print(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        if self._flooded:
            return
        self._parts.append(text[: self._room])
        self._room -= len(text)
        if self._room < 0:
            self._flooded = True
            self.kill()

    def _failure(self, failure: MontyError) -> tuple[str, str]:
        from pydantic_monty import MontyCrashedError, MontyRuntimeError

        text = str(failure)[:MAX_ERROR]
        if isinstance(failure, MontyCrashedError):
            return ("timeout", _late(self._request)) if failure.timed_out else ("killed", "the worker died")
        if "time limit exceeded" in text and text.startswith("TimeoutError"):
            return "timeout", _late(self._request)
        if text.startswith("MemoryError") and "memory limit" in text:
            return "oom", f"more than {self._request.memory // 2**20} MB of memory"
        module = _MODULE.search(text) if text.startswith("ModuleNotFoundError") else None
        if module:
            return "error", f"module {module.group(1)} is not in the embedded sandbox; use --sandbox docker"
        if text.startswith("NotImplementedError: The monty"):
            missing = text.partition("support ")[2] or "this"
            return "error", f"the embedded sandbox does not support {missing}; use --sandbox docker"
        if isinstance(failure, MontyRuntimeError) and (frames := failure.traceback()):
            return "error", f"{text} (line {frames[-1].line})"
        return "error", text


def _late(request: ExecRequest) -> str:
    return f"no end within {request.seconds:g} s"


def _refuse(request: ExecRequest) -> ExecResult | None:
    """The result of a request that cannot run at all."""
    if request.language != "python":
        return ExecResult("unsupported", error=f"the embedded sandbox runs python, not {request.language}")
    if len(request.code) > MAX_CODE:
        return ExecResult("error", error=f"the code has {len(request.code)} characters; at most {MAX_CODE} can run")
    try:
        request.code.encode("utf-8")
    except UnicodeEncodeError as error:
        return ExecResult("error", error=f"the code is not valid Unicode text at character {error.start}")
    return None
