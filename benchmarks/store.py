"""What a durable event costs: `python benchmarks/store.py [folder]`. CPU is user + system of the whole process.

`batch`: 100,000 events appended as fast as they are taken. `threads`: 1,000 coroutines that append five events of a
turn and wait until they are on disk, 20 times: the log's share of a run. `bare loop`: the same without a store.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel

from researcher.events import CallStarted, EventBody, MessageAdded, ToolCalled, ToolReturned
from researcher.store import RunReader, RunStore
from researcher.store.schema import Synchronous
from researcher.types import FinishReason, Message, ToolCall, Usage

CALL = ToolCall(id="call_1", name="search", arguments='{"query": "who founded Velar"}')
TURN: tuple[EventBody, ...] = (
    CallStarted(),
    MessageAdded(
        message=Message(role="assistant", reasoning="I look it up. " * 6, tool_calls=(CALL,)),
        finish=FinishReason.TOOL_CALLS,
        usage=Usage(prompt_tokens=300, completion_tokens=40, calls=1),
        model="m",
    ),
    ToolCalled(call_id="call_1", name="search", arguments=CALL.arguments),
    ToolReturned(call_id="call_1", name="search", status="ok", content="Velar was founded in 1901. " * 8),
    CallStarted(),
)


async def batch(store: RunStore) -> int:
    """As many as are taken."""
    last = 0
    for _ in range(20):
        for _ in range(1000):
            for body in TURN:
                last = store.append("vote/1", body).seq
        await store.durable(last)
    return last


async def threads(store: RunStore | None) -> int:
    """A thousand threads at once."""

    async def one(key: str) -> None:
        for _ in range(20):
            last = 0
            for body in TURN:
                if store is not None:
                    last = store.append(key, body).seq
            if store is None:
                await anyio.lowlevel.checkpoint()
            else:
                await store.durable(last)

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(one, f"vote/{number}")
    return 1000 * 20 * len(TURN)


def measure(name: str, work: Callable[[], Awaitable[int]]) -> float:
    """CPU microseconds an event; printed with the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()

    async def run() -> int:
        return await work()

    events = anyio.run(run)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    each = cpu / events * 1e6
    print(json.dumps({"case": name, "events": events, "cpu_us_per_event": round(each, 1), "wall_s": round(wall, 2)}))
    return each


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=folder) as home:
        measure("bare loop", lambda: threads(None))
        modes: tuple[tuple[Synchronous, float], ...] = (("full", 0.001), ("full", 0.0), ("normal", 0.001))
        for number, (mode, linger) in enumerate(modes):
            for case in (batch, threads):
                path = Path(home) / f"{case.__name__}-{number}.db"

                async def work(path: Path = path, mode: Synchronous = mode, linger: float = linger, case=case) -> int:  # type: ignore[no-untyped-def]
                    store = RunStore.create(path, synchronous=mode, linger=linger)
                    events: int = await case(store)
                    await store.aclose()
                    return events

                measure(f"{case.__name__}, {mode}, linger {linger * 1e3:g} ms", work)
        start = time.process_time()
        with RunReader(Path(home) / "batch-0.db") as reader:
            reader.verify()
            verified = time.process_time()
            count = sum(1 for _ in reader.read())
        read = time.process_time()
        print(json.dumps({"case": "verify", "cpu_us_per_event": round((verified - start) / count * 1e6, 1)}))
        print(json.dumps({"case": "read", "cpu_us_per_event": round((read - verified) / count * 1e6, 1)}))


if __name__ == "__main__":
    main()
