"""Kills a run with SIGKILL at seeded moments, resumes it, and reports what was lost or done twice; prints JSON.

A process of its own: it forks the process to be killed, so it must have no threads and no event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from researcher import Orchestrator, Task, tool
from researcher.events import BudgetCharged, Event, MessageAdded, RunResumed
from researcher.store import RunReader, list_runs, run_path
from researcher.strategies.prompts import answer_prompt

THREADS = 6
QUESTION = "What is the answer?"


@tool
async def echo(text: str) -> str:
    """Say it again."""
    return text


async def work(url: str, home: Path, run_id: str | None, acknowledged: int) -> None:
    """Start or resume the run; tell each durable event's digest to the pipe `acknowledged`."""
    async with Orchestrator(f"{url}#delay", home=home, tools=[echo], stream=False) as orchestrator:
        if run_id is None:
            task = Task(question=QUESTION, tools=("echo",))
            run = await orchestrator.start(task, strategy="vote", params={"n": THREADS, "stop": "full"})
        else:
            run = await orchestrator.resume(run_id)
        async for event in run.events():
            os.write(acknowledged, f"{event.seq} {digest(event)}\n".encode())
        await run.result()


def digest(event: Event) -> str:
    """What identifies an event."""
    return f"{hash_of(msgspec.msgpack.encode(event))}"


def hash_of(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:16]


def attempt(url: str, home: Path, run_id: str | None, seconds: float | None) -> tuple[dict[int, str], bool]:
    """Run in a fork for `seconds`, then SIGKILL; what it acknowledged, and whether it ended by itself."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 1
        try:
            asyncio.run(work(url, home, run_id, write))
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read, "rb") as pipe:
        lines = [line.split() for line in pipe.read().decode().splitlines() if line.count(" ") == 1]
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("the run broke by itself")
    return {int(seq): found for seq, found in lines if len(found) == 16}, os.WIFEXITED(status)


def counts(url: str) -> dict[str, int]:
    """Requests the server has seen, by a hash of their body."""
    with urllib.request.urlopen(f"{url}/counts") as reply:
        return dict(json.load(reply))


def one_run(url: str, home: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """A run killed `kills` times and then finished; what it lost and repeated."""
    acknowledged: dict[int, str] = {}
    run_id: str | None = None
    killed = 0
    before = counts(url)
    while killed < kills:
        seen, ended = attempt(url, home, run_id, rng.uniform(0.03, 0.22))
        acknowledged |= seen
        if ended:
            break
        killed += 1
        if run_id is None and (runs := list_runs(home)):
            run_id = runs[0].id if runs[0].events else None
            if run_id is None:
                run_path(home, runs[0].id).unlink()
    acknowledged |= attempt(url, home, run_id, None)[0]
    run_id = run_id or list_runs(home)[0].id
    events = list(RunReader(run_path(home, run_id)).read())
    found = {event.seq: digest(event) for event in events}
    after = counts(url)
    asked = {key: n - before.get(key, 0) for key, n in after.items() if n != before.get(key, 0)}
    messages = sum(isinstance(e.body, MessageAdded) for e in events)
    lost = sum(isinstance(e.body, BudgetCharged) and e.body.reason == "lost call" for e in events)
    answer = next((e.body.answer for e in reversed(events) if getattr(e.body, "answer", None)), None)
    return {
        "kills": killed,
        "resumes": sum(isinstance(e.body, RunResumed) for e in events),
        "events": len(events),
        "lost": [seq for seq, value in acknowledged.items() if found.get(seq) != value],
        "gaps": [e.seq for i, e in enumerate(events, 1) if e.seq != i],
        "messages": messages,
        "calls_asked": sum(asked.values()),
        "calls_lost_on_record": lost,
        "answer": answer and [answer.text, answer.votes],
    }


def main() -> None:
    """`crash_harness.py RUNS KILLS_PER_RUN SEED`."""
    runs, kills, seed = (int(arg) for arg in sys.argv[1:4])
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.delay_server", "--delay", "0.03"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    answer_prompt(QUESTION)
    rows = []
    try:
        for i in range(runs):
            with tempfile.TemporaryDirectory() as home:
                rows.append(one_run(url, Path(home), kills, random.Random(seed * 1000 + i)))
    finally:
        server.kill()
        server.wait()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
