"""Fold speed and memory of the thought graph: `python benchmarks/graph.py [threads]`.

Each thread: a shared prompt of two messages, five turns of a tool call with its result, a claim, a final message and
a vote: 14 messages and 29 events. Texts are short and all different, so nothing merges but the prompt: the worst case.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Iterator

from researcher.events import (
    AnswerProposed,
    CallStarted,
    ClaimAdded,
    Event,
    EventBody,
    MessageAdded,
    RunStarted,
    ThreadFinished,
    ThreadStarted,
    ToolCalled,
    ToolReturned,
)
from researcher.graph import ThoughtGraph
from researcher.types import (
    Claim,
    Evidence,
    FinishReason,
    Message,
    Outcome,
    Sampling,
    SourceRef,
    Task,
    ToolCall,
    Usage,
    Work,
)

PROMPT = (Message(role="system", content="Think, then answer. " * 20), Message(role="user", content="What is it?"))
USAGE = Usage(prompt_tokens=200, completion_tokens=40, calls=1)


def thread(key: str, number: int) -> Iterator[EventBody]:
    """The events of one thread."""
    yield ThreadStarted(work=Work(key=key, messages=PROMPT, group="vote", sampling=Sampling(seed=number)))
    sha = f"{number % 100:064x}"
    for turn in range(5):
        yield CallStarted()
        arguments = f'{{"query": "thing {number} {turn}"}}'
        call = ToolCall(id=f"call_{number}_{turn}", name="search", arguments=arguments)
        message = Message(role="assistant", reasoning=f"I look for thing {number} in turn {turn}.", tool_calls=(call,))
        yield MessageAdded(message=message, finish=FinishReason.TOOL_CALLS, usage=USAGE, model="m")
        yield ToolCalled(call_id=call.id, name="search", arguments=arguments)
        yield ToolReturned(
            call_id=call.id,
            name="search",
            status="ok",
            content=f"[{turn}] thing {number} was made in {turn}.",
            sources=(SourceRef(sha256=sha, name="doc.md"),),
        )
    yield CallStarted()
    final = Message(role="assistant", reasoning=f"So it is {number}.", content=f"<answer>{number % 7}</answer>")
    yield MessageAdded(message=final, finish=FinishReason.STOP, usage=USAGE, model="m")
    yield ClaimAdded(claim=Claim(text=f"thing {number % 50}", evidence=(Evidence(sha256=sha, start=0, end=9),)))
    yield AnswerProposed(text=str(number % 7), canonical=str(number % 7))
    yield ThreadFinished(outcome=Outcome.ANSWERED)


def events(threads: int) -> Iterator[Event]:
    """The log: the threads' events interleaved, one each in turn, as in a run of all threads at once."""
    yield Event(1, None, 0.0, RunStarted(task=Task(question="What is it?"), strategy="vote"))
    seq = 1
    running = [(f"vote/{n}", thread(f"vote/{n}", n)) for n in range(threads)]
    while running:
        for key, bodies in running:
            if (body := next(bodies, None)) is not None:
                seq += 1
                yield Event(seq, key, 0.0, body)
        running = [pair for pair in running if pair[1].gi_frame is not None]


def rss() -> int:
    """Bytes resident now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    gc.collect()
    before, graph, spent, count, batch = rss(), ThoughtGraph(), 0.0, 0, []
    for event in events(threads):
        batch.append(event)
        if len(batch) == 1000:
            start = time.process_time()
            for each in batch:
                graph.apply(each)
            spent += time.process_time() - start
            count, batch = count + len(batch), []
    for each in batch:
        graph.apply(each)
    gc.collect()
    bytes_used = rss() - before
    start = time.perf_counter()
    graph.threads("vote")
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(10):
        graph.threads("vote")
        graph.votes()
    again = (time.perf_counter() - start) / 10
    figures = {
        "threads": threads,
        "events": graph.seq,
        "nodes": graph.nx.number_of_nodes(),
        "edges": graph.nx.number_of_edges(),
        "fold_us_per_event": round(spent / count * 1e6, 2),
        "kb_per_thread": round(bytes_used / threads / 1024, 1),
        "threads_and_votes_first_ms": round(first * 1e3, 2),
        "threads_and_votes_ms": round(again * 1e3, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
