"""What every Store must do: `for check in CHECKS: await check(make)`, where `make()` opens a new, empty store.

A third party runs it as `@pytest.mark.parametrize("check", CHECKS)`. Each check closes the store it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import anyio

from researcher.errors import StoreError
from researcher.events import CallStarted, EventBody, MessageAdded, RunStarted, ThreadStarted
from researcher.protocols import Store
from researcher.types import FinishReason, Message, Sampling, Task, Tokens, ToolCall, Usage, Work

Make = Callable[[], Store]
Check = Callable[[Make], Awaitable[None]]

BODIES: tuple[tuple[str | None, EventBody], ...] = (
    (None, RunStarted(task=Task(question="Wer? 誰? 🙂", data={"n": [1, None, "x"]}), strategy="vote", seed=7)),
    ("a", ThreadStarted(work=Work(key="a", messages=(Message(role="user", content=""),), sampling=Sampling(seed=3)))),
    ("a", CallStarted()),
    (
        "a",
        MessageAdded(
            message=Message(role="assistant", tool_calls=(ToolCall(id="1", name="f", arguments="{}"),)),
            finish=FinishReason.TOOL_CALLS,
            tokens=Tokens(ids=(1, 2, 3), sampled_from=1, logprobs=(-0.5, -1.25)),
            usage=Usage(prompt_tokens=1, completion_tokens=2, calls=1, cost=0.25),
        ),
    ),
)


async def numbers_without_gaps(make: Make) -> None:
    """Events are numbered from 1 without gaps, at once."""
    store = make()
    assert [store.append(thread, body).seq for thread, body in BODIES] == [1, 2, 3, 4]
    await store.aclose()


async def durable_is_readable(make: Make) -> None:
    """What `durable` acknowledged is read back as it was appended, in order."""
    store = make()
    events = [store.append(thread, body) for thread, body in BODIES]
    await store.durable(events[-1].seq)
    assert list(store.read()) == events
    assert list(store.read(after=2)) == events[2:]
    assert list(store.read(after=4)) == []
    await store.aclose()


async def durable_again_returns(make: Make) -> None:
    """Waiting for what is durable already returns; thousands may wait for one event."""
    store = make()
    event = store.append(*BODIES[0])
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(store.durable, event.seq)
    await store.durable(event.seq)
    await store.aclose()


async def cancelled_waiters_hurt_nobody(make: Make) -> None:
    """A waiter that is cancelled takes nothing from the others."""
    store = make()
    event = store.append(*BODIES[0])
    async with anyio.create_task_group() as group:
        group.start_soon(store.durable, event.seq)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.durable(event.seq + 1)
    await store.aclose()


async def blobs_by_content(make: Make) -> None:
    """A blob has the sha256 of its bytes as its name, is there at once, and may be stored twice."""
    store = make()
    for data in (b"", b"\x00\xff" * 10, "größe ".encode() * 5000):
        name = store.put_blob(data)
        assert name == hashlib.sha256(data).hexdigest()
        assert store.get_blob(name) == data
        assert store.put_blob(data) == name
    event = store.append(*BODIES[0])
    await store.durable(event.seq)
    assert store.get_blob(hashlib.sha256(b"").hexdigest()) == b""
    await store.aclose()


async def unknown_blob_is_an_error(make: Make) -> None:
    """A name nobody stored raises StoreError."""
    store = make()
    await _refuses(lambda: store.get_blob("0" * 64))
    await store.aclose()


async def closed_refuses(make: Make) -> None:
    """After `aclose`, which may be called twice, appending raises StoreError."""
    store = make()
    store.append(*BODIES[0])
    await store.aclose()
    await store.aclose()
    await _refuses(lambda: store.append(*BODIES[0]))


async def _refuses(call: Callable[[], object]) -> None:
    try:
        call()
    except StoreError:
        return
    raise AssertionError("expected a StoreError")


CHECKS: tuple[Check, ...] = (
    numbers_without_gaps,
    durable_is_readable,
    durable_again_returns,
    cancelled_waiters_hurt_nobody,
    blobs_by_content,
    unknown_blob_is_an_error,
    closed_refuses,
)
