"""The faults of a run and its event log, numbered as in design/faults.md, on real sockets, files and processes.

29, 30 and 36 (SIGKILL at every write point, while resuming, between reply and write) are in test_crash.py.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from researcher import Orchestrator
from researcher.errors import ResearcherError, StoreCorrupt, StoreError, StoreLocked
from researcher.store import RunReader, RunStore, run_path
from researcher.testing.model_server import ModelServer, Received, Reply
from researcher.types import Budget, Outcome, Task

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
ROOT = Path(__file__).parents[2]
TASK = Task(question="What is the answer?")
VOTE: dict[str, Any] = {"strategy": "vote", "params": {"n": 3, "stop": "full"}}
ANSWER = Reply("<answer>42</answer>")
SILENT = Reply("never", stall_after=0, delay=3600)


def asked(server: ModelServer) -> list[Received]:
    """The run's own calls: the endpoint's probe asks for one token."""
    return [request for request in server.requests if request.body.get("max_tokens") != 1]


def first_then_silent(count: int) -> Callable[[Received], Reply]:
    """The first calls of the run are answered, the others never."""
    seen = itertools.count()

    def script(request: Received) -> Reply:
        probe = request.body.get("max_tokens") == 1
        return ANSWER if probe or next(seen) < count else SILENT

    return script


async def interrupted(home: Path, image: Path | None = None) -> str:
    """A run of three threads of which one has its answer; `image` gets a copy of the files as a crash leaves them."""
    with ModelServer(first_then_silent(1)) as server:
        async with Orchestrator(f"{server.url}#test", home=home) as orchestrator:
            run = await orchestrator.start(TASK, **VOTE)
            with anyio.fail_after(60):
                async for _ in run.events():
                    if any(thread.outcome for thread in run.graph.threads("vote")):
                        break
            await run.shared.journal.store.durable(run.graph.seq)
            if image is not None:
                shutil.copytree(home, image)
            run.abort()
            await run.result()
    return run.id


async def resumed(home: Path, run_id: str) -> tuple[Any, int]:
    """The result of the run taken up again, and how many calls that took."""
    with ModelServer(ANSWER) as server:
        async with Orchestrator(f"{server.url}#test", home=home) as orchestrator:
            result = await (await orchestrator.resume(run_id)).result()
        return result, len(asked(server))


async def test_31_a_torn_tail_is_dropped_and_reported(tmp_path: Path) -> None:
    image = tmp_path / "image"
    run_id = await interrupted(tmp_path / "home", image)
    path = run_path(image, run_id)
    wal = path.with_name(path.name + "-wal")
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - 1000)
    store = RunStore.open(path)
    assert store.notice is not None
    assert "dropped" in store.notice
    await store.aclose()
    result, _ = await resumed(image, run_id)
    assert (result.answer.text, result.answer.votes) == ("42", 3)


async def test_32_a_flipped_byte_is_detected(tmp_path: Path) -> None:
    run_id = await interrupted(tmp_path)
    path = run_path(tmp_path, run_id)
    data = path.read_bytes()
    at = data.rindex(b"What is the answer?")
    path.write_bytes(data[:at] + b"w" + data[at + 1 :])
    with pytest.raises(StoreCorrupt, match=run_id):
        await resumed(tmp_path, run_id)


def test_33_a_full_disk_fails_cleanly_and_earlier_data_stays_readable(tmp_path: Path) -> None:
    """A file size limit is the disk: the write fails in the kernel, in a process of its own."""
    script = f"""
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from researcher import Orchestrator, Task
from researcher.errors import StoreError
from researcher.testing.model_server import ModelServer, Reply

async def main():
    with ModelServer(Reply("x" * 4000 + "<answer>42</answer>")) as server:
        async with Orchestrator(server.url + "#test", home={str(tmp_path)!r}) as orchestrator:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            run = await orchestrator.start(Task(question="q"), strategy="vote", params={{"n": 500, "stop": "full"}})
            try:
                await run.result()
            except StoreError as error:
                print("clean:", error)
                return
            print("no error")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("clean:"), done.stdout + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (path,) = (tmp_path / "runs").glob("*.db")
    events = list(RunReader(path).read())
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len(events) > 1


async def test_34_a_home_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with ModelServer(ANSWER) as server:
        async with Orchestrator(f"{server.url}#test", home="/proc/researcher") as orchestrator:
            with pytest.raises(StoreError, match="/proc/researcher"):
                await orchestrator.start(TASK, **VOTE)
        assert asked(server) == []


async def test_35_a_run_open_elsewhere_is_refused(tmp_path: Path) -> None:
    with ModelServer(SILENT) as server:
        async with Orchestrator(f"{server.url}#test", home=tmp_path) as orchestrator:
            run = await orchestrator.start(TASK, **VOTE)
            command = [sys.executable, "-m", "researcher", "resume", run.id, "--home", str(tmp_path)]
            environment = {**os.environ, "RESEARCHER_MODEL": f"{server.url}#test"}
            done = await anyio.run_process(command, check=False, env=environment)
            async with Orchestrator(f"{server.url}#test", home=tmp_path) as other:
                with pytest.raises(StoreLocked):
                    await other.resume(run.id)
    assert done.returncode == 1
    assert run.id in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


async def test_37_a_newer_schema_is_refused_not_misread(tmp_path: Path) -> None:
    run_id = await interrupted(tmp_path)
    with sqlite3.connect(run_path(tmp_path, run_id)) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ResearcherError, match="99"):
        await resumed(tmp_path, run_id)


async def test_38_a_clock_that_jumps_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10**9, 0, -100))
    create = RunStore.create

    def backwards(path: Path, **options: Any) -> RunStore:
        return create(path, clock=lambda: float(next(times)), **options)

    monkeypatch.setattr(RunStore, "create", backwards)
    with ModelServer(ANSWER) as server:
        async with Orchestrator(f"{server.url}#test", home=tmp_path) as orchestrator:
            run = await orchestrator.start(TASK, **VOTE)
            result = await run.result()
    events = list(RunReader(run_path(tmp_path, run.id)).read())
    assert events[0].at > events[-1].at
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    again, calls = await resumed(tmp_path, run.id)
    assert again.answer == result.answer
    assert calls == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_39_a_signal_ends_the_run_saved_within_five_seconds(tmp_path: Path, sent: signal.Signals) -> None:
    with ModelServer(first_then_silent(1)) as server:
        process, began = await started_cli(server, tmp_path)
        process.send_signal(sent)
        _, said = await anyio.to_thread.run_sync(process.communicate)
        assert time.monotonic() - began < 7
        assert process.returncode == 130, said
        assert "resume" in said
        assert "Traceback" not in said
    (path,) = (tmp_path / "runs").glob("*.db")
    result, calls = await resumed(tmp_path, path.stem)
    assert (result.answer.text, calls) == ("42", 2)


async def test_39_a_second_signal_forces(tmp_path: Path) -> None:
    with ModelServer(first_then_silent(1)) as server:
        process, _ = await started_cli(server, tmp_path)
        process.send_signal(signal.SIGINT)
        await anyio.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 130
    assert time.monotonic() - began < 2.5


async def started_cli(server: ModelServer, home: Path) -> tuple[subprocess.Popen[str], float]:
    """The command line with three calls in flight, one of them answered."""
    command = [sys.executable, "-m", "researcher", "run", "What is the answer?", "--home", str(home)]
    command += ["--model", f"{server.url}#test", "--strategy", "vote", "--set", "n=3", "--set", "stop=full"]
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )
    await server.until(lambda counts: counts.calls == 4, seconds=60)
    await anyio.sleep(0.3)
    return process, time.monotonic()


async def test_40_a_thread_that_hangs_leaves_the_others_and_the_answer_says_partial(tmp_path: Path) -> None:
    with ModelServer(first_then_silent(2)) as server:
        async with Orchestrator(f"{server.url}#test", home=tmp_path) as orchestrator:
            run = await orchestrator.start(TASK, **VOTE, budget=Budget(seconds=2.0))
            result = await run.result()
    assert result.limit == "seconds"
    assert result.answer is not None
    assert result.answer.votes == 2
    assert sorted(str(t.outcome) for t in run.graph.threads("vote")) == ["answered", "answered", "exhausted"]


async def test_41_a_slow_disk_does_not_block_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(sqlite3.Connection):
        def commit(self) -> None:
            time.sleep(1.0)
            super().commit()

    create = RunStore.create
    monkeypatch.setattr(RunStore, "create", lambda path, **options: create(path, factory=Slow, **options))
    longest = 0.0

    async def heartbeat() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await anyio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    with ModelServer(ANSWER) as server:
        async with (
            Orchestrator(f"{server.url}#test", home=tmp_path) as orchestrator,
            anyio.create_task_group() as group,
        ):
            group.start_soon(heartbeat)
            result = await orchestrator.answer(TASK, **VOTE)
            group.cancel_scope.cancel()
    assert result.outcome is Outcome.ANSWERED
    assert longest < 0.8


async def test_42_without_docker_code_runs_in_the_embedded_sandbox(tmp_path: Path) -> None:
    from researcher.types import ToolCall

    call = ToolCall(id="c1", name="python", arguments='{"code": "print(6 * 7)"}')
    script = [ANSWER, Reply("", tool_calls=[call], finish="tool_calls"), ANSWER]  # the probe is the first
    with ModelServer(script) as server:
        async with Orchestrator(f"{server.url}#test", home=tmp_path) as orchestrator:
            result = await orchestrator.answer(Task(question="6*7?", tools=("python",)), strategy="chain_of_thought")
        told = asked(server)[1].body["messages"][-1]
    assert result.outcome is Outcome.ANSWERED
    assert told["content"].strip() == "42"


def test_43_out_of_file_descriptors_is_backpressure(tmp_path: Path) -> None:
    script = f"""
import asyncio, resource, sys
sys.path.insert(0, {str(ROOT)!r})
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
from researcher import Orchestrator, Task, tool

@tool
async def echo(text: str) -> str:
    "Say it again."
    return text

async def main():
    async with Orchestrator(sys.argv[1], home={str(tmp_path)!r}, tools=[echo]) as orchestrator:
        run = await orchestrator.start(
            Task(question="q", tools=("echo",)), strategy="vote", params={{"n": 1000, "stop": "full"}}
        )
        print((await run.result()).answer.votes)
asyncio.run(main())
"""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.delay_server", "--delay", "0.05"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1#delay"
        done = subprocess.run(
            [sys.executable, "-c", script, url], capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        server.kill()
        server.communicate()
    assert done.stdout.strip() == "1000", done.stdout + done.stderr[-2000:]
