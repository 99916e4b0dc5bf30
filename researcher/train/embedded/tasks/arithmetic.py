"""Arithmetic with the `python` tool: one call, then the answer."""

from __future__ import annotations

import random
import zlib

from researcher.strategies.prompts import answer_prompt
from researcher.train.embedded.tasks.example import Example, call, result, say, system, user

PHRASINGS = ("What is {}?", "Compute {}.", "Calculate {}.", "How much is {}?")


def is_held_out(expression: str) -> bool:
    """Whether this expression belongs to evaluation."""
    return zlib.crc32(b"arithmetic/" + expression.encode()) % 10 == 0


def expression(rng: random.Random, *, held_out: bool = False) -> tuple[str, int]:
    """An expression of two to four numbers with + - * and its value."""
    while True:
        parts = [str(rng.randrange(2, 10 ** rng.randrange(1, 5)))]
        for _ in range(rng.choice((1, 1, 2, 2, 3))):
            parts += [rng.choice("+-*"), str(rng.randrange(2, 10 ** rng.randrange(1, 4)))]
        if len(parts) > 3 and rng.random() < 0.3:
            parts[0], parts[2] = f"({parts[0]}", f"{parts[2]})"
        text = " ".join(parts)
        if is_held_out(text) == held_out:
            return text, int(eval(text))  # made of digits, + - * and parentheses just above


def make(rng: random.Random, *, held_out: bool = False) -> Example:
    """One solved problem."""
    text, value = expression(rng, held_out=held_out)
    tools = ("python",) if rng.random() < 0.8 else ("search", "read", "python")
    prompt = answer_prompt(rng.choice(PHRASINGS).format(text), tools)
    messages = [
        system(prompt.system),
        user(prompt.user),
        call("python", f"print({text})", f"Compute {text}."),
        result(str(value)),
        say(f"<answer>{value}</answer>", f"It is {value}."),
    ]
    return Example("arithmetic", messages, tools, str(value), {})
