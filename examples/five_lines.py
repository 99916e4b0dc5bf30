"""The Python door in five lines: a cited answer from a folder of documents, on the embedded model.

Run it with `python examples/five_lines.py`; it needs no key, no GPU and no network.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from researcher import Orchestrator, Task

DOCUMENTS = Path(__file__).parent / "documents"
QUESTION = (DOCUMENTS.parent / "question.txt").read_text("utf-8").strip()


async def main() -> None:
    """Ask, watch, print."""
    async with Orchestrator("embedded", documents=DOCUMENTS) as orchestrator:
        run = await orchestrator.start(Task(question=QUESTION, tools=("search", "read")), strategy="research")
        async for event in run.events():
            print(event.seq, event.thread, type(event.body).__name__)
        print((await run.result()).answer)


if __name__ == "__main__":
    asyncio.run(main())
