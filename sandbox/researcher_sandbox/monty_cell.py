"""One piece of code in one worker of pydantic-monty: its limits, its output, its end in words, and its kill."""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from researcher.protocols import ExecRequest, ExecResult
from researcher_sandbox.monty_gate import BROKEN, MESSAGE
from researcher_sandbox.monty_watch import Watch
from researcher_sandbox.output import FLOOD, Output

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError, MontySession

MAX_CODE = 64 * 1024
"""Characters of code."""

RECURSION = 500
"""Depth of calls."""

SUSPENSIONS = 100
"""Times that a script may ask its host for something, which here has nothing to give; an undefined name counts."""

DEAD = 8
"""Workers that may be found dead before it is said that none can be had."""

MAX_ERROR = 2_000
"""Characters of an error's text."""

_MODULE = re.compile(r"No module named '([\w.]+)'")


def taken(pool: Monty, request: ExecRequest, *, suspensions: int = SUSPENSIONS) -> MontySession:
    """A worker, entered. One that died while nobody had it is found dead when it is taken: then the next one is."""
    from pydantic_monty import MontyCrashedError

    for _ in range(DEAD):
        with suppress(MontyCrashedError):
            return checkout(pool, request, suspensions=suspensions).__enter__()
    return checkout(pool, request, suspensions=suspensions).__enter__()


def checkout(pool: Monty, request: ExecRequest, *, suspensions: int = SUSPENSIONS) -> MontySession:
    """A worker with every limit set, once it is entered."""
    return pool.checkout(
        limits={
            "max_feed_duration_secs": request.seconds,
            "max_turn_duration_secs": request.seconds,
            "max_memory": request.memory,
            "max_recursion_depth": RECURSION,
            "max_suspensions": suspensions,
            "max_total_sleep_secs": 0.0,
            "gc_interval": 100_000,
        },
        # Code here has nobody to wait for: its sleeps take no time.
        os_policy={"sleep": "zero"},
    )


class Cell:
    """One piece of code: run in a thread, killed from any."""

    def __init__(self, request: ExecRequest, watch: Watch) -> None:
        self._request, self._watch = request, watch
        self._output = Output(request.output)
        # Invariant: `_worker` is the process that runs this now, or None; it is killed under the lock only.
        self._lock = threading.Lock()
        self._worker: int | None = None
        self._dead = False
        self._late = False

    def kill(self) -> None:
        """End it: its worker if it has one now, else as soon as it gets one."""
        with self._lock:
            self._dead = True
            if self._worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._worker, signal.SIGKILL)

    def run(self, session: MontySession, *, sooner: bool = False) -> ExecResult:
        """The result, whatever the code did. Raises OSError or RuntimeError where the pool itself broke.

        `sooner`: the worker was given a longer limit than this request's, which is kept from here.
        """
        from pydantic_monty import MontyError

        began = perf_counter()
        status, error = "ok", ""
        self._attach(session)
        timer = threading.Timer(self._request.seconds, self._expire) if sooner else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            # The trailing None: no value of the code is ever converted in this process. The empty line before it is
            # the end of a last line that ends in a backslash, which would make the None a part of its expression.
            session.feed_run(f"{self._request.code}\n\nNone", print_callback=self._print)
        except MontyError as failure:
            status, error = _failure(failure, self._request)
        finally:
            self._detach()
            if timer is not None:
                timer.cancel()
        if status == "killed" and self._late:
            status, error = "timeout", late(self._request)
        if self._output.flooded:
            status, error = "output_limit", f"more than {FLOOD * self._request.output} bytes of output"
        return ExecResult(
            status,
            self._output.text(),
            error,
            perf_counter() - began,
            self._output.truncated,
            self._output.total,
        )

    def _expire(self) -> None:
        self._late = True
        self.kill()

    def _attach(self, session: MontySession) -> None:
        with self._lock:
            self._worker = session.worker_pid
            if self._worker is not None:
                self._watch.begin(self._worker)
            dead = self._dead
        if dead:
            self.kill()

    def _detach(self) -> None:
        with self._lock:
            if self._worker is not None:
                self._watch.end(self._worker)
            self._worker = None

    def _print(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._output.add(text)
        if self._output.flooded:  # pieces that were on their way still arrive; what is kept of them is bounded
            self.kill()


def refusal(request: ExecRequest) -> ExecResult | None:
    """The result of a request that cannot run here at all."""
    if request.language != "python":
        return ExecResult(
            "unsupported", error=f"the embedded sandbox runs python, not {request.language}; use --sandbox docker"
        )
    if request.files or request.keep:
        return ExecResult("unsupported", error="the embedded sandbox has no files; use --sandbox docker")
    if len(request.code) > MAX_CODE:
        return ExecResult("error", error=f"the code has {len(request.code)} characters; at most {MAX_CODE} can run")
    try:
        request.code.encode("utf-8")
    except UnicodeEncodeError as error:
        return ExecResult("error", error=f"the code is not valid Unicode text at character {error.start}")
    return None


def late(request: ExecRequest) -> str:
    """What is said of code that did not end in time."""
    return f"no end within {request.seconds:g} s"


def _failure(failure: MontyError, request: ExecRequest) -> tuple[str, str]:
    """A status and its reason."""
    from pydantic_monty import MontyCrashedError, MontyRuntimeError

    text = str(failure)[:MAX_ERROR]
    if isinstance(failure, MontyCrashedError):
        if failure.timed_out:
            return "timeout", late(request)
        large = f"an error, or a call for what is not here, of more than {MESSAGE // 2**20} MB"
        return "killed", large if failure.exit_status == BROKEN else "the worker died"
    if "time limit exceeded" in text and text.startswith("TimeoutError"):
        return "timeout", late(request)
    if text.startswith("MemoryError") and "memory limit" in text:
        return "oom", f"more than {request.memory // 2**20} MB of memory"
    module = _MODULE.search(text) if text.startswith("ModuleNotFoundError") else None
    if module:
        return "error", f"module {module.group(1)} is not in the embedded sandbox; use --sandbox docker"
    if text.startswith("NotImplementedError: The monty"):
        missing = text.partition("support ")[2] or "this"
        return "error", f"the embedded sandbox does not support {missing}; use --sandbox docker"
    if isinstance(failure, MontyRuntimeError) and (frames := failure.traceback()):
        return "error", f"{text} (line {frames[-1].line})"
    return "error", text
