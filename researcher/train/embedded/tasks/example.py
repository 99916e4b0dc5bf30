"""What a generated task is: the messages of a solved conversation, its tools and its right answer."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

Skill = Literal[
    "one_hop", "two_hops", "three_hops", "comparison", "unanswerable",
    "countdown_3", "countdown_4", "arithmetic", "splitting", "synthesis", "judging", "lookup",
    "step_3", "step_4", "step_24", "process", "outcome", "value", "propose", "choose", "revise", "aggregate",
]  # fmt: skip

Message = dict[str, Any]


def _tool(name: str, description: str, parameter: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


SEARCH = _tool("search", "Search the documents.", "query")
READ = _tool("read", "Read a document.", "source")
PYTHON = _tool("python", "Run Python code.", "code")
TOOLS: dict[str, dict[str, Any]] = {"search": SEARCH, "read": READ, "python": PYTHON}


class Example(NamedTuple):
    """One solved task; `messages` in OpenAI's form, reasoning in `reasoning_content`."""

    skill: Skill
    messages: list[Message]
    tools: tuple[str, ...]
    answer: str
    texts: dict[str, str]
    """The documents that its tools read; empty where it has none."""


def system(text: str) -> Message:
    """A system message."""
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    """A user message."""
    return {"role": "user", "content": text}


def say(content: str, think: str = "") -> Message:
    """A final assistant message."""
    return {"role": "assistant", "content": content, "reasoning_content": think}


def write(content: str) -> Message:
    """A final assistant message without a block of reasoning: its turn begins with the content."""
    return {"role": "assistant", "content": content}


def call(name: str, argument: str, think: str) -> Message:
    """An assistant message that calls one tool with its one argument."""
    (parameter,) = TOOLS[name]["function"]["parameters"]["properties"]
    function = {"name": name, "arguments": json.dumps({parameter: argument}, ensure_ascii=False)}
    calls = [{"type": "function", "id": "c", "function": function}]
    return {"role": "assistant", "content": "", "reasoning_content": think, "tool_calls": calls}


def result(text: str) -> Message:
    """What a tool gave back."""
    return {"role": "tool", "content": text, "tool_call_id": "c"}
