"""CPU per model call of the client beside bare aiohttp and other transports, at 1,000 calls in flight.

`python -m benchmarks.http` (part of `make bench`): N tasks of 4 calls each against a fixed-delay server in another
process. The variants take turns, each in a fresh process; figures are medians over the rounds. CPU is user + system
of the client process. `bare` posts JSON and decodes the reply, as a user would write it in ten lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.engine import cpu

CALLS = 4
MESSAGES = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is six times seven?" * 20},
]


async def bare(url: str, tasks: int) -> float:
    """The floor: aiohttp, JSON in and out."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def once() -> None:
            body = {"model": "delay", "messages": MESSAGES, "temperature": 0.8, "max_tokens": 100}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                assert (await response.json())["choices"]

        return await _drive(once, tasks)


async def ours(url: str, tasks: int, **options: Any) -> float:
    """`Endpoint.complete`."""
    from researcher.models.endpoint import Endpoint
    from researcher.models.limiter import AdaptiveLimiter
    from researcher.types import Message, ModelRequest, Sampling

    messages = tuple(Message(role=m["role"], content=m["content"]) for m in MESSAGES)  # type: ignore[arg-type]
    request = ModelRequest(messages=messages, sampling=Sampling(temperature=0.8, max_tokens=100))
    endpoint = Endpoint(url, "delay", limiter=AdaptiveLimiter(max(tasks, 1024)), **options)
    await endpoint.capabilities()

    async def once() -> None:
        assert (await endpoint.complete(request)).message

    try:
        return await _drive(once, tasks)
    finally:
        await endpoint.aclose()


async def ours_httpx(url: str, tasks: int) -> float:
    """`Endpoint.complete` over a user's httpx client with its default pool, opened wide."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits) as client:
        return await ours(url, tasks, client=client)


VARIANTS = {"bare": bare, "ours": ours, "ours-httpx": ours_httpx}


async def _drive(once: Callable[[], Awaitable[None]], tasks: int) -> float:
    """CPU milliseconds per call."""

    async def thread() -> None:
        for _ in range(CALLS):
            await once()

    await once()  # imports and the first connection are not what is measured
    before = cpu()
    await asyncio.gather(*(thread() for _ in range(tasks)))
    return 1000 * (cpu() - before) / (tasks * CALLS)


def child(kind: str, url: str, tasks: int) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.http", "--child", kind, "--url", url, "--tasks", str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print CPU per call of each variant and its ratio to bare aiohttp."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--variants", default="bare,ours")
    parser.add_argument("--child")
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    if options.child:
        began = time.perf_counter()
        ms = asyncio.run(VARIANTS[options.child](options.url, options.tasks))
        print(json.dumps({"ms": ms, "wall": time.perf_counter() - began}))
        return
    command = [sys.executable, "-m", "benchmarks.delay_server", "--delay", str(options.delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        try:
            _report(url, options.variants.split(","), options.tasks, options.rounds)
        finally:
            server.kill()


def _report(url: str, variants: list[str], tasks: int, rounds: int) -> None:
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            runs[variant].append(child(variant, url, tasks))
    for variant, results in runs.items():
        ms = statistics.median(r["ms"] for r in results)
        wall = statistics.median(r["wall"] for r in results)
        ratio = statistics.median(r["ms"] / b["ms"] for r, b in zip(results, runs[variants[0]], strict=True))
        print(f"{variant:12} {tasks:6} tasks  {ms:.3f} ms CPU a call  {wall:5.2f} s  {ratio:.2f} times {variants[0]}")


if __name__ == "__main__":
    main()
