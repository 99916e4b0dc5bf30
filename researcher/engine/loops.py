"""Tells a conversation that goes in circles from one that goes on."""

from __future__ import annotations

from collections.abc import Sequence

from researcher.types import Message

WARN = 2
"""The same call for this many times in a conversation: the model is told so instead of being given the result again."""
STOP = 4
"""The same call for this many times: the thread is stopped."""


def repeats(messages: Sequence[Message], name: str, arguments: str) -> int:
    """How many messages of the conversation make this very call."""
    return sum(
        any(call.name == name and call.arguments == arguments for call in message.tool_calls) for message in messages
    )


def loop(messages: Sequence[Message]) -> str | None:
    """Why the conversation counts as a loop, or None. Looks only at what its last assistant message repeats."""
    last = messages[-1] if messages else None
    if last is None or not last.tool_calls:
        return None
    for call in last.tool_calls:
        if (times := repeats(messages, call.name, call.arguments)) >= STOP:
            return f"loop: the same call to {call.name} was made {times} times"
    return None
