"""A session of the embedded sandbox: one worker that keeps its names from cell to cell, until a cell breaks it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from researcher.errors import SandboxFault
from researcher.protocols import ExecRequest, ExecResult
from researcher_sandbox.monty_cell import Cell, refusal, taken
from researcher_sandbox.monty_watch import Watch

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontySession

SUSPENSIONS = 2_000
"""As of a script, for all cells together."""

_KEEPS = frozenset({"ok", "error", "unsupported"})
"""The ends of a cell after which its names can be trusted; the interpreter stops at a limit wherever it is."""


class EmbeddedSession:
    """A `Session` on a worker of its own, taken with the first cell, whose time and memory hold for all of them.

    A later cell may have less time, never more. `ended` is called once, when the worker is given back.
    """

    def __init__(
        self, pool: Callable[[], Monty], turns: anyio.CapacityLimiter, watch: Watch, ended: Callable[[], None]
    ) -> None:
        self._pool, self._turns, self._watch, self._ended = pool, turns, watch, ended
        self._order = anyio.Lock()
        # Invariant: whoever enters, feeds or leaves `_worker` holds this; a kill does not.
        self._using = threading.Lock()
        self._worker: MontySession | None = None
        self._seconds = 0.0
        self._cell: Cell | None = None
        self._lost = ""
        self._given_back = False

    @property
    def lost(self) -> str:
        """Why it can run nothing any more; empty while it can."""
        return self._lost

    async def run(self, request: ExecRequest) -> ExecResult:
        """The next cell. One that reaches a limit, kills the worker or is cancelled ends the session."""
        async with self._order:
            if self._lost:
                raise SandboxFault(f"the session is lost: {self._lost}")
            refused = refusal(request)
            return await self._run(request) if refused is None else refused

    async def aclose(self) -> None:
        """Kill a cell in flight and give the worker back; later cells are a SandboxFault."""
        self._lost = self._lost or "it was closed"
        if self._cell is not None:
            self._cell.kill()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._leave)

    async def _run(self, request: ExecRequest) -> ExecResult:
        cell = self._cell = Cell(request, self._watch)
        settled = False
        try:
            result = await anyio.to_thread.run_sync(
                self._feed, cell, request, limiter=self._turns, abandon_on_cancel=True
            )
            settled = True
        finally:
            self._cell = None
            if not settled:
                self._lost = self._lost or "a cell was cancelled"
                cell.kill()
        return result

    def _feed(self, cell: Cell, request: ExecRequest) -> ExecResult:
        """One cell in this thread. A worker that cannot go on is given back here, where nobody else can use it."""
        whole = False
        with self._using:
            try:
                worker = self._entered(request)
                result = cell.run(worker, sooner=request.seconds < self._seconds)
                whole = result.status in _KEEPS
                if not whole:
                    self._lost = self._lost or f"a cell ended as {result.status}"
                return result
            except (OSError, RuntimeError, _monty_error()) as failure:
                raise SandboxFault(f"the embedded sandbox broke: {failure}") from failure
            finally:
                if not whole:
                    self._lost = self._lost or "its worker could not be used"
                    self._give_back()

    def _entered(self, request: ExecRequest) -> MontySession:
        if self._worker is None:
            if self._given_back:
                raise RuntimeError("the session is closed")
            self._worker = taken(self._pool(), request, suspensions=SUSPENSIONS)
            self._seconds = request.seconds
        return self._worker

    def _leave(self) -> None:
        with self._using:
            self._give_back()

    def _give_back(self) -> None:
        """Leave the worker to the pool, which replaces a dead one; once."""
        if self._given_back:
            return
        self._given_back = True
        worker, self._worker = self._worker, None
        if worker is not None:
            with suppress(OSError, RuntimeError, _monty_error()):
                worker.__exit__(None, None, None)
        self._ended()


def _monty_error() -> type[Exception]:
    from pydantic_monty import MontyError

    return MontyError
