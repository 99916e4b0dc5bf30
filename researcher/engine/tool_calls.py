"""The tool calls of one thread: each on record before it runs, its result before the thread goes on."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from researcher.engine.loops import WARN, repeats
from researcher.engine.shared import Shared
from researcher.engine.toolbox import Caller
from researcher.events import ToolCalled, ToolReturned
from researcher.types import Message, PassageRef, ToolCall, Work

REPEATED = "You made this very call before; its result stands above. Use it, or ask for something else."


class ToolCalls:
    """Runs what a thread's messages ask for. `passages`: by number, all that the thread has read so far."""

    def __init__(self, shared: Shared, key: str, work: Work) -> None:
        self._shared = shared
        self._key = key
        self._granted = frozenset(work.tools)
        self._unique = f"{shared.run}/{key}"
        self.passages: dict[int, PassageRef] = {p.n: p for p in shared.journal.graph.passages(key)}

    async def run(self, pending: Sequence[ToolCall], messages: Sequence[Message]) -> bool:
        """Whether every call has its result; False where the run stopped while somebody was asked for approval, and
        whoever resumes it is asked again."""
        done: list[bool] = []

        async def one(call: ToolCall) -> None:
            done.append(await self._call(call, messages))

        if len(pending) == 1:
            await one(pending[0])
        else:
            async with anyio.create_task_group() as group:
                for call in pending:
                    group.start_soon(one, call)
        return all(done)

    async def release(self) -> None:
        """Give back what the tools hold for this thread."""
        await self._shared.toolbox.release(self._unique)

    async def _call(self, call: ToolCall, messages: Sequence[Message]) -> bool:
        journal, graph, key = self._shared.journal, self._shared.journal.graph, self._key
        journal.add(key, ToolCalled(call_id=call.id, name=call.name, arguments=call.arguments))
        if call.name in self._granted and repeats(messages, call.name, call.arguments) > WARN:  # this message counts
            journal.add(key, ToolReturned(call_id=call.id, name=call.name, status="error", content=REPEATED))
            return True
        caller = Caller(
            thread=key,
            unique=self._unique,
            granted=self._granted,
            earlier=lambda tool: graph.done(key, tool),
            origins=lambda: graph.origins(key),
            stopping=self._shared.stopping,
        )
        returned = await self._shared.toolbox.call(call, caller)
        if returned is None:
            return False
        body, sources = returned
        for source in sources:
            journal.store.put_blob(source.data)
        journal.add(key, body)
        self.passages.update((passage.n, passage) for passage in body.passages)
        return True
