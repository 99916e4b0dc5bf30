"""Drives one run for a person: shows it, hears Ctrl-C and SIGTERM, and turns its end into an exit code."""

from __future__ import annotations

import signal

import anyio
import msgspec

from researcher.cli.exits import Exit
from researcher.cli.live import Screen, watch
from researcher.cli.output import Output, counted, spent
from researcher.engine.run import Run, RunResult
from researcher.types import Outcome


def exit_code(result: RunResult) -> Exit:
    """The exit code of a run. An answer that wanted evidence or a verifier and has neither is not a success."""
    if result.interrupted or result.outcome is Outcome.CANCELLED:
        return Exit.INTERRUPTED
    if result.limit is not None:
        return Exit.LIMIT
    if result.outcome is Outcome.FAILED:
        return Exit.ERROR
    if result.answer is None or result.answer.supported is False:
        return Exit.UNVERIFIED
    return Exit.ANSWERED


async def drive(run: Run, output: Output, screen: Screen | None = None) -> RunResult:
    """The result of the run, shown while it goes on; `screen` is shared with whoever asks questions."""
    result: RunResult | None = None
    async with anyio.create_task_group() as group:
        await group.start(_hear, run, output)
        output.note(f"run {run.id}")  # who reads it may interrupt the run, and is heard
        group.start_soon(watch, run.stats, output.err, screen)
        if output.json:
            async for event in run.events():
                output.line(event)
        result = await run.result()
        group.cancel_scope.cancel()
    assert result is not None
    return result


def tell_end(run: Run, result: RunResult, *, output: Output) -> None:
    """Narrate how the run ended and what can be done with it; its last JSON line."""
    stats = run.stats()
    output.line({"result": msgspec.to_builtins(_record(result)), "exit": int(exit_code(result))})
    output.note(f"{_ending(result)} after {stats.seconds:.1f} s; {counted(stats.threads)}; {spent(result.usage)}")
    if result.interrupted:
        output.note(f"everything so far is saved; go on with: researcher resume {run.id}")
    else:
        output.note(f"see it with: researcher show {run.id}   or play it: researcher replay {run.id}")


def _ending(result: RunResult) -> str:
    if result.interrupted:
        return "interrupted"
    if result.limit is not None:
        return f"ended by the {result.limit} limit"
    if result.outcome is Outcome.ANSWERED and exit_code(result) is Exit.UNVERIFIED:
        return "ended without a verified answer"
    return f"{result.outcome}" + (f" ({result.detail})" if result.detail and result.answer is None else "")


def _record(result: RunResult) -> dict[str, object]:
    fields = ("id", "outcome", "answer", "usage", "detail", "limit", "interrupted")
    return {name: getattr(result, name) for name in fields}


async def _hear(run: Run, output: Output, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """The first signal drains the run, the second aborts it."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        heard = 0
        async for _ in signals:
            heard += 1
            if heard == 1:
                output.note("finishing the calls in flight and saving; Ctrl-C again stops at once")
                run.drain()
            else:
                run.abort()
