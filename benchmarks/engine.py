"""CPU per model call, wall time and memory of the engine beside a bare aiohttp loop that makes the same requests.

`python -m benchmarks.engine` (part of `make bench`): N threads of 4 turns with a tool call between, against a
fixed-delay server in another process; the event log is on and durable. Engine and bare loop take turns, each in a
fresh process; figures are medians over the rounds. CPU is user + system of the client process, all its threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.delay_server import TURNS

QUESTION = "What is the answer?"


def cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak() -> int:
    """Peak resident memory in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def bare(url: str, threads: int) -> dict[str, Any]:
    """The floor: the same conversations on aiohttp, nothing recorded."""
    import aiohttp

    from researcher.strategies.prompts import answer_prompt

    prompt = answer_prompt(QUESTION, ("echo",))
    spec = {
        "type": "function",
        "function": {
            "name": "echo",
            "description": "Say it again.",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        },
    }
    answers = 0

    async def converse(session: aiohttp.ClientSession) -> None:
        nonlocal answers
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
        while True:
            body = {"model": "delay", "messages": messages, "tools": [spec], "max_tokens": 1024, "temperature": 0.8}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                message = json.loads(await response.read())["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                answers += "<answer>" in message["content"]
                return
            for call in message["tool_calls"]:
                text = json.loads(call["function"]["arguments"])["text"]
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        before, began = cpu(), time.perf_counter()
        await asyncio.gather(*(converse(session) for _ in range(threads)))
        return _figures(threads, cpu() - before, time.perf_counter() - began, answers)


async def ours(url: str, threads: int) -> dict[str, Any]:
    """The engine: strategy, budget, event log (durable), graph, tools."""
    from researcher import Orchestrator, Task, tool

    @tool
    async def echo(text: str) -> str:
        """Say it again."""
        return text

    with tempfile.TemporaryDirectory() as home:
        async with Orchestrator(f"{url}#delay", home=home, tools=[echo]) as orchestrator:
            before, began, memory = cpu(), time.perf_counter(), peak()
            run = await orchestrator.start(
                Task(question=QUESTION, tools=("echo",)), strategy="vote", params={"n": threads, "stop": "full"}
            )
            result = await run.result()
            figures = _figures(threads, cpu() - before, time.perf_counter() - began, result.answer.votes)
            figures["kb_per_thread"] = (peak() - memory) / threads
            figures["events"] = run.graph.seq
            return figures


def _figures(threads: int, cpu_seconds: float, wall: float, answered: int) -> dict[str, Any]:
    return {
        "ms_per_call": 1000 * cpu_seconds / (threads * TURNS),
        "wall": wall,
        "answered": answered,
        "failed": threads - answered,
    }


def child(kind: str, url: str, threads: int) -> dict[str, Any]:
    """Run one measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.engine", "--child", kind, "--url", url, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{kind} with {threads} threads failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(sizes: list[int], rounds: int, delay: float) -> list[dict[str, Any]]:
    """Medians for each size, engine and bare loop interleaved."""
    command = [sys.executable, "-m", "benchmarks.delay_server", "--delay", str(delay)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    rows = []
    try:
        for threads in sizes:
            runs: dict[str, list[dict[str, Any]]] = {"bare": [], "ours": []}
            for _ in range(rounds):
                for kind, results in runs.items():
                    results.append(child(kind, url, threads))
            rows.append(_row(threads, runs))
            print(_line(rows[-1]), flush=True)
    finally:
        server.kill()
        server.wait()
    return rows


def _row(threads: int, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def median(kind: str, field: str) -> float:
        return statistics.median(run[field] for run in runs[kind])

    ratios = [a["ms_per_call"] / b["ms_per_call"] for a, b in zip(runs["ours"], runs["bare"], strict=True)]
    return {
        "threads": threads,
        "bare_ms": median("bare", "ms_per_call"),
        "ours_ms": median("ours", "ms_per_call"),
        "ratio": statistics.median(ratios),
        "bare_wall": median("bare", "wall"),
        "ours_wall": median("ours", "wall"),
        "kb_per_thread": median("ours", "kb_per_thread"),
        "failed": max(run["failed"] for run in runs["ours"]),
        "events": median("ours", "events"),
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['threads']:>6} threads: bare {row['bare_ms']:.3f} ms a call, ours {row['ours_ms']:.3f} "
        f"({row['ratio']:.2f}x); wall {row['bare_wall']:.2f} / {row['ours_wall']:.2f} s; "
        f"{row['kb_per_thread']:.1f} KB a thread; {row['failed']} failed; {row['events']:.0f} events"
    )


def main() -> None:
    """Measure, print, and write the rows as JSON where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=["bare", "ours"])
    parser.add_argument("--url", default="")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.child:
        kind = {"bare": bare, "ours": ours}[options.child]
        print(json.dumps(asyncio.run(kind(options.url, options.threads))))
        return
    rows = measure(options.sizes, options.rounds, options.delay)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
