"""The `python` tool with a session for each thread: names stay from call to call, and come back after a loss.

A session is lost when a cell runs into a limit, when its container or its worker dies, when this process ends, or when
it is closed because others need its place. It is rebuilt before the thread's next cell, by running the thread's earlier
cells again without their output. A cell itself is never run twice: one that was cut off is an error result, does not
count as an earlier one, and it is the model that decides whether to ask again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from researcher.errors import SandboxFault, ToolError
from researcher.protocols import ExecRequest, ExecResult, Sandbox, Session, ToolContext, ToolResult
from researcher.types import ToolSpec
from researcher_tools.decorator import tool
from researcher_tools.printed import OUTPUT, refusal, shown

SESSIONS = 8
"""Sessions at once, where the sandbox does not say how many it can hold."""

REBUILD_SECONDS = 40.0
"""For running all earlier cells of a thread again: less than a tool call may take."""

_KEEPS = frozenset({"ok", "error", "unsupported"})
"""The ends of a cell that leave its session whole."""

_REBUILT = "The session was lost with it. What your earlier calls made is made again at your next call."


@dataclass(slots=True, eq=False)
class _Thread:
    """What is known of a thread. Invariant: while it is `running`, nobody but its own call touches `session`."""

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    running: bool = False
    session: Session | None = None
    failed: set[int] = field(default_factory=set)
    """Which of its cells, by number, ended in an error when they were called."""
    given_up: int = 0
    """So many cells could not be run again: the session begins after them."""


class SessionPython:
    """A `Tool` that `KeepsThreads`. Of the open sessions the one that was idle longest makes place for a new one."""

    def __init__(
        self, sandbox: Sandbox, prepare: Callable[[str], str], *, seconds: float, memory: int, sessions: int = 0
    ) -> None:
        self._sandbox, self._prepare = sandbox, prepare
        self._seconds, self._memory = seconds, memory
        places = sessions or getattr(sandbox, "sessions", SESSIONS)
        # Invariant: a running thread holds a place, and `_open` has at most as many threads as there are places; so one
        # that runs and has no session finds a place in `_open`, or a thread there that is not running.
        self._places = anyio.CapacityLimiter(places)
        self._open: dict[_Thread, None] = {}  # in the order of their last use
        self._threads: dict[str, _Thread] = {}

        @tool(description="Run Python code. What it defines stays for your next calls.")
        async def python(code: str, context: ToolContext) -> ToolResult:
            try:
                return await self._call(code, context)
            except ToolError as error:
                error.origin = "sandbox"  # it repeats what the cell printed
                raise

        self._tool = python

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it: the arguments are those of a script."""
        return self._tool.spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """What the cell printed. Raises ToolError where the session was lost, for the model to act on."""
        return await self._tool.call(arguments, context)

    async def release(self, thread: str) -> None:
        """Close the thread's session, whatever runs in it."""
        known = self._threads.pop(thread, None)
        if known is not None:
            await self._close(known)

    async def aclose(self) -> None:
        """Close all sessions; the sandbox is its owner's."""
        for thread in tuple(self._threads):
            await self.release(thread)

    async def _call(self, code: str, context: ToolContext) -> ToolResult:
        refused = refusal(code)
        if refused:
            return ToolResult(f"Error: {refused}", origin="sandbox")
        thread = self._threads.setdefault(context.thread, _Thread())
        async with thread.turn, self._places, _running(thread):
            earlier = _cells(context)
            note = await self._ready(thread, earlier)
            try:
                result = await self._run(thread, code)
            except SandboxFault as error:
                raise ToolError(f"{error}. It is not known how far this call came. {_REBUILT}") from error
            if result.status not in _KEEPS:
                await self._close(thread)
                raise ToolError(f"{shown(result)}\n{_REBUILT}")
            if result.status == "error":
                thread.failed.add(len(earlier))
            return ToolResult(f"{note}{shown(result)}", origin="sandbox")

    async def _ready(self, thread: _Thread, earlier: Sequence[str]) -> str:
        """See that the thread has its session, with all that its earlier cells made; what the model should know."""
        lost: str = getattr(thread.session, "lost", "")
        if lost:
            await self._close(thread)
        if thread.session is not None:
            self._open[thread] = self._open.pop(thread)
            return ""
        await self._take_place(thread)
        try:
            thread.session = await self._sandbox.session()
        finally:
            if thread.session is None:
                self._open.pop(thread, None)
        return await self._rebuild(thread, earlier)

    async def _rebuild(self, thread: _Thread, earlier: Sequence[str]) -> str:
        spent, notes = 0.0, []
        for number, code in enumerate(earlier):
            if number < thread.given_up or refusal(code):
                continue
            try:
                result = await self._run(thread, code)
            except SandboxFault as error:
                raise ToolError(
                    f"{error}, while your earlier calls ran again. This call was not run: repeat it."
                ) from error
            spent += result.seconds
            why = f"{number + 1}. call: {shown(result)[-200:]}" if result.status not in _KEEPS else ""
            if not why and spent > REBUILD_SECONDS:
                why = f"they take more than {REBUILD_SECONDS:g} s"
            if why:
                thread.given_up = len(earlier)
                await self._close(thread)
                raise ToolError(
                    f"The session was lost, and running your earlier calls again did not bring it back ({why}). "
                    "This call was not run. The session is empty from here: define again what you need."
                )
            if result.status == "error" and number not in thread.failed:
                notes.append(f"(Your {number + 1}. call was run again and failed: {result.error[:200]})\n")
        return "".join(notes)

    async def _run(self, thread: _Thread, code: str) -> ExecResult:
        """One cell. Raises SandboxFault; the session it was lost with is closed."""
        assert thread.session is not None
        request = ExecRequest(self._prepare(code), seconds=self._seconds, memory=self._memory, output=OUTPUT)
        settled = False
        try:
            result = await thread.session.run(request)
            settled = True
        finally:
            if not settled:
                await self._close(thread)
        return result

    async def _take_place(self, thread: _Thread) -> None:
        """Have a place for one more session, that of the thread that was idle longest if need be."""
        idle = [each for each in self._open if not each.running]
        full = len(self._open) >= self._places.total_tokens
        self._open[thread] = None
        if full:
            await self._close(idle[0])

    async def _close(self, thread: _Thread) -> None:
        """Give the session back; a cancelled caller too."""
        session, thread.session = thread.session, None
        self._open.pop(thread, None)
        if session is not None:
            with anyio.CancelScope(shield=True):
                await session.aclose()


@asynccontextmanager
async def _running(thread: _Thread) -> AsyncIterator[None]:
    thread.running = True
    try:
        yield
    finally:
        thread.running = False


def _cells(context: ToolContext) -> list[str]:
    """The thread's earlier cells, those of an earlier process included."""
    return [str(each.get("code", "")) for each in context.earlier()]
