"""The shipped GGUF under llama.cpp, against transformers: the same ids in, the same greedy ids out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from researcher.train.embedded import data
from researcher.train.embedded.tasks.example import TOOLS

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

SKILLS: tuple[data.Skill, ...] = (
    "one_hop",
    "comparison",
    "countdown_3",
    "arithmetic",
    "splitting",
    "synthesis",
    "judging",
    "step_4",
    "process",
)

TOSS = 0.25
"""Difference of two logits below which bfloat16 products may decide otherwise than float32 ones."""


@pytest.fixture(scope="module")
def served(recipe: Path, trainer: None) -> Iterator[Any]:
    from researcher.train.embedded.served import serve

    with serve(recipe, slots=2) as model:
        yield model


@pytest.fixture(scope="module")
def theirs(folder: Path, trainer: None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("skill", SKILLS)
def test_greedy_tokens_are_the_same(served: Any, theirs: Any, skill: data.Skill) -> None:
    """Up to where two tokens are as good as each other: the order of a Countdown search is such a toss by design."""
    import torch

    model, tokenizer = theirs
    example = data.make(random.Random(11), skill, held_out=True)
    tools = [TOOLS[tool] for tool in example.tools] or None
    # the last turn, after all the tool results
    text = tokenizer.apply_chat_template(example.messages[:-1], tools=tools, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text)["input_ids"]
    assert served.post("/tokenize", {"content": text, "parse_special": True})["tokens"] == ids
    body = {"prompt": ids, "n_predict": 48, "temperature": 0, "return_tokens": True}
    ours = served.post("/completion", body)["tokens"]
    with torch.no_grad():
        logits = model(torch.tensor([ids + ours])).logits[0, len(ids) - 1 : -1]
    best = logits.topk(2)
    tossed = [i for i, (first, second) in enumerate(best.values.tolist()) if first - second < TOSS]
    certain = tossed[0] if tossed else len(ours)
    assert best.indices[:certain, 0].tolist() == ours[:certain]
    wrong = [i for i, token in enumerate(ours) if best.indices[i, 0] != token]
    assert set(wrong) <= set(tossed)
    assert len(ours) >= 2


@pytest.mark.parametrize("skill", SKILLS)
def test_both_servers_render_the_same_prompt(served: Any, theirs: Any, skill: data.Skill) -> None:
    _, tokenizer = theirs
    example = data.make(random.Random(12), skill, held_out=True)
    tools = [TOOLS[tool] for tool in example.tools]
    for end in [i for i, message in enumerate(example.messages) if message["role"] == "assistant"]:
        messages = example.messages[:end]
        body = {"messages": messages, **({"tools": tools} if tools else {})}
        expected = tokenizer.apply_chat_template(
            messages, tools=tools or None, add_generation_prompt=True, tokenize=False
        )
        assert served.post("/apply-template", body)["prompt"] == expected


def test_llama_cpp_reads_the_call_and_the_reasoning_out_of_what_the_model_writes(served: Any) -> None:
    example = data.held_out("one_hop", 1)[0]
    message = served.chat(example.messages[:2], example.tools)["message"]
    assert message["reasoning_content"].strip()
    assert message["tool_calls"][0]["function"]["name"] == "search"
    assert not message["content"]


def test_a_turn_read_back_is_the_turn_as_written(served: Any) -> None:
    """Parse and render again: the ids of the conversation so far stay what the server has sampled."""
    example = data.held_out("two_hops", 2)[1]
    messages = list(example.messages[:2])
    tools = [TOOLS[tool] for tool in example.tools]
    prompt = served.post("/apply-template", {"messages": messages, "tools": tools})["prompt"]
    ids = served.post("/tokenize", {"content": prompt, "parse_special": True})["tokens"]
    sampled = served.post("/completion", {"prompt": ids, "n_predict": 200, "temperature": 0, "return_tokens": True})[
        "tokens"
    ]
    messages.append(served.chat(messages, example.tools)["message"])
    messages.append({"role": "tool", "content": "No passage matches.", "tool_call_id": "c"})
    after = served.post("/apply-template", {"messages": messages, "tools": tools})["prompt"]
    again = served.post("/tokenize", {"content": after, "parse_special": True})["tokens"]
    assert again[: len(ids) + len(sampled)] == ids + sampled
