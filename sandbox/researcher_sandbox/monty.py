"""The embedded sandbox: a small Python interpreter in pooled worker processes, with every limit set.

It needs no container and starts in milliseconds, and pays with the language: no third-party modules and only a
part of the standard library. The interpreter bounds time, heap, recursion and host calls itself, but not what it says
to its host. So output is capped where it arrives (the worker is killed), no value ever comes back (a script prints what
it wants to show), and all else goes through a gate.

The pool's blocking face in worker threads, not its asyncio one: with that one a process was seen to abort at exit,
when a native thread came back to an interpreter that was shutting down.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from researcher.errors import SandboxFault, UserError
from researcher.protocols import ExecRequest, ExecResult, Session
from researcher_sandbox import monty_gate
from researcher_sandbox.monty_cell import Cell, refusal, taken
from researcher_sandbox.monty_session import EmbeddedSession
from researcher_sandbox.monty_watch import Watch

if TYPE_CHECKING:
    from pydantic_monty import Monty

SESSIONS = 16
"""Sessions that may be open at once; each holds a process."""

_GRACE = 1.0
"""Seconds beyond its limit after which a pool kills a worker."""


class MontySandbox:
    """A `Sandbox` on pydantic-monty. Scripts share `processes` workers; sessions have up to `sessions` of their own,
    so that open sessions never keep a script waiting. Each pool starts with its first code."""

    languages = ("python",)
    modules: tuple[str, ...] = ()

    def __init__(self, *, processes: int = 2, sessions: int = SESSIONS) -> None:
        if importlib.util.find_spec("pydantic_monty") is None:
            raise UserError("The embedded sandbox is not installed; pip install 'researcher-orchestrator[local]'.")
        self.sessions = sessions
        self._scripts = _Pool(processes)
        self._cells = _Pool(sessions)
        self._watch = Watch()
        self._sessions: set[EmbeddedSession] = set()

    async def run(self, request: ExecRequest) -> ExecResult:
        """What the script printed and how it ended. A cancelled run kills its worker."""
        refused = refusal(request)
        if refused is not None:
            return refused
        cell = Cell(request, self._watch)
        try:
            return await anyio.to_thread.run_sync(
                self._script, cell, request, limiter=self._scripts.turns, abandon_on_cancel=True
            )
        finally:
            cell.kill()

    async def session(self) -> Session:
        """A new session. Raises SandboxFault where as many are open as there may be: one must be closed first."""
        if len(self._sessions) >= self.sessions:
            raise SandboxFault(f"the embedded sandbox has {self.sessions} sessions open, as many as it may have")
        made: EmbeddedSession = EmbeddedSession(
            self._cells.started, self._cells.turns, self._watch, lambda: self._sessions.discard(made)
        )
        self._sessions.add(made)
        return made

    async def aclose(self) -> None:
        """End the sessions and stop the workers."""
        for session in tuple(self._sessions):
            await session.aclose()
        for pool in (self._scripts, self._cells):
            await anyio.to_thread.run_sync(pool.close)
        await anyio.to_thread.run_sync(self._watch.close)

    def _script(self, cell: Cell, request: ExecRequest) -> ExecResult:
        from pydantic_monty import MontyError

        try:
            with ExitStack() as stack:
                worker = taken(self._scripts.started(), request)
                stack.push(worker)
                return cell.run(worker)
        except (OSError, RuntimeError, MontyError) as failure:
            # No worker within the deadline, or none could be started.
            raise SandboxFault(f"the embedded sandbox broke: {failure}") from failure


class _Pool:
    """A pool of workers that starts when it is first used, from any thread."""

    def __init__(self, processes: int) -> None:
        self.turns = anyio.CapacityLimiter(processes)
        self._processes = processes
        self._pool: Monty | None = None
        self._open = ExitStack()
        # Invariant: the pool is made once, by whichever job thread comes first.
        self._making = threading.Lock()

    def started(self) -> Monty:
        """The pool. Raises SandboxFault."""
        import pydantic_monty

        with self._making:
            if self._pool is None:
                try:
                    pool = pydantic_monty.Monty(
                        binary_path=_gated(Path(self._open.enter_context(TemporaryDirectory(prefix="researcher-")))),
                        max_processes=self._processes,
                        checkout_timeout=60.0,
                        feed_duration_limit_grace=_GRACE,
                        turn_duration_limit_grace=_GRACE,
                    )
                    self._pool = self._open.enter_context(pool)
                except (OSError, RuntimeError, pydantic_monty.MontyError) as error:
                    self._open.close()
                    raise SandboxFault(f"the embedded sandbox did not start: {error}") from error
            return self._pool

    def close(self) -> None:
        """Stop the workers."""
        with self._making:
            self._pool = None
            self._open.close()


def _gated(folder: Path) -> Path:
    """A program, in this folder, that is a worker behind its gate: the pool takes a path and no arguments.

    Raises OSError where nothing in the folder can be started.
    """
    from pydantic_monty._binary import find_monty_binary

    program = folder / "worker"
    command = shlex.join([sys.executable, "-I", "-S", str(Path(monty_gate.__file__)), find_monty_binary()])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    if not os.access(program, os.X_OK):
        raise PermissionError(f"no program can be started in {folder.parent} (mounted noexec?); set TMPDIR to a folder")
    return program
