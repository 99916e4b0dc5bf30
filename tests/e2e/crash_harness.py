"""Kills a run with SIGKILL at seeded moments, resumes it, and reports what was lost or done twice; prints JSON.

A process of its own: it forks the process to be killed, so it must have no threads and no event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from researcher import Orchestrator, Task, tool
from researcher.events import BudgetCharged, Event, MessageAdded, RunResumed, ThreadStarted
from researcher.store import RunReader, list_runs, run_path

THREADS = 6
QUESTION = "What is the answer?"


@tool
async def echo(text: str) -> str:
    """Say it again."""
    return text


async def work(url: str, home: Path, run_id: str | None, acknowledged: int) -> None:
    """Start or resume the run; tell each durable event's digest to the pipe `acknowledged`."""
    async with Orchestrator(f"{url}#delay", home=home, tools=[echo], concurrency=3) as orchestrator:
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
    return hashlib.sha256(msgspec.msgpack.encode(event)).hexdigest()[:16]


def attempt(
    url: str, home: Path, run_id: str | None, seconds: float | None, *, early: bool = False
) -> tuple[dict[int, str], bool]:
    """Run in a fork, SIGKILL it `seconds` after its first durable event (`early`: after its start).

    What it acknowledged, and whether it ended by itself.
    """
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
        if not early:
            select.select([read], [], [], 10.0)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read, "rb") as pipe:
        lines = [line.split() for line in pipe.read().decode().splitlines() if line.count(" ") == 1]
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("the run broke by itself")
    return {int(seq): found for seq, found in lines if len(found) == 16}, os.WIFEXITED(status)


def counts(url: str) -> dict[str, int]:
    """Replies the server has begun, by a hash of the request's body."""
    with urllib.request.urlopen(f"{url}/counts") as reply:
        return dict(json.load(reply))


def one_run(url: str, home: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """A run killed `kills` times and then finished; what it lost and repeated."""
    acknowledged: dict[int, str] = {}
    run_id: str | None = None
    killed = 0
    before = counts(url)
    while killed < kills:
        early = rng.random() < 0.2  # some in the middle of starting or resuming
        seen, ended = attempt(url, home, run_id, rng.uniform(0.0, 0.1), early=early)
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
    asked = {key: n - before.get(key, 0) for key, n in counts(url).items()}
    answered = {key: n for key, n in asked.items() if not key.startswith("None/")}  # a probe has no seed
    allowed = allowance(events)
    answer = next((e.body.answer for e in reversed(events) if getattr(e.body, "answer", None)), None)
    return {
        "kills": killed,
        "resumes": sum(isinstance(e.body, RunResumed) for e in events),
        "events": len(events),
        "acknowledged": len(acknowledged),
        "lost": [seq for seq, value in acknowledged.items() if found.get(seq) != value],
        "gaps": [e.seq for i, e in enumerate(events, 1) if e.seq != i],
        "calls": len(allowed),
        "answered": sum(answered.values()),
        "made_again": {key: n for key, n in answered.items() if n > allowed.get(key, 0)},
        "answer": answer and [answer.text, answer.votes],
    }


def allowance(events: list[Event]) -> dict[str, int]:
    """How often the server may have answered each call: once, and once for each time it was lost in flight."""
    seeds: dict[str | None, int] = {}
    turns: Counter[str | None] = Counter()
    allowed: Counter[str] = Counter()
    for event in events:
        if isinstance(event.body, ThreadStarted):
            seeds[event.thread] = event.body.work.sampling.seed or 0
        key = f"{seeds.get(event.thread, 0) + turns[event.thread]}/{turns[event.thread] + 1}"
        if isinstance(event.body, MessageAdded):
            allowed[key] += 1
            turns[event.thread] += 1
        elif isinstance(event.body, BudgetCharged) and event.body.reason == "lost call":
            allowed[key] += 1
    return dict(allowed)


def main() -> None:
    """`crash_harness.py KILLS SEED`: runs until there were this many kills, each run killed at most ten times."""
    kills, seed = (int(arg) for arg in sys.argv[1:3])
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.delay_server", "--delay", "0.02", "--counting"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    rows: list[dict[str, Any]] = []
    try:
        while (done := sum(row["kills"] for row in rows)) < kills:
            with tempfile.TemporaryDirectory() as home:
                rows.append(one_run(url, Path(home), min(10, kills - done), random.Random(seed * 1000 + len(rows))))
    finally:
        server.kill()
        server.wait()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
