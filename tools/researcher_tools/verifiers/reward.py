"""Generative reward: the probability of `+` against `-` as the first token of a chat model's reply.

Any server that reports alternatives of a token will do. The convention is RLHFlow's and Math-Shepherd's: a softmax over
the two signs alone. The prompts are word for word those that the embedded reasoner is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from researcher.errors import ModelError
from researcher.protocols import Ask
from researcher.types import Alternative, Completion, Message, ModelRequest, Sampling, Verdict
from researcher_tools.verifiers.verdicts import scored, unverified

ALTERNATIVES = 20
"""The most that servers report for a token (OpenAI's and vLLM's default limit)."""

_PROCESS = "Can these steps still lead to a right answer? Reply + or -."
_OUTCOME = "Is the solution right? Reply + or -."
THINK = "<think>"
"""How models of the Qwen3 and DeepSeek-R1 families open their thinking."""

_PLUS, _MINUS = frozenset({"+", "＋"}), frozenset({"-", "\u2212", "\u2013"})
# How tokenizers write a leading space: sentencepiece's block and GPT-2's G with a dot.
_SPACE = "\u2581\u0120\u010a"


class Signs(NamedTuple):
    """P(+) of P(+) + P(-), or None and what is missing; `begins`: the likeliest first token, where it is no sign."""

    score: float | None
    missing: str = ""
    begins: str = ""


@dataclass(slots=True)
class Manner:
    """What was noticed of the model that is asked. `thinks`: it opens its thinking before it says a sign."""

    thinks: bool = False


def process_messages(question: str, steps: Sequence[str]) -> tuple[Message, ...]:
    """Asks whether a right answer can still be reached from these steps."""
    lines = [step.strip() for step in steps]
    text = "\n".join([f"Question: {question}", "Steps:" if lines else "Steps: none", *lines])
    return Message(role="system", content=_PROCESS), Message(role="user", content=text)


def outcome_messages(question: str, solution: str) -> tuple[Message, ...]:
    """Asks whether a whole solution is right."""
    text = f"Question: {question}\nSolution:\n{solution.strip()}"
    return Message(role="system", content=_OUTCOME), Message(role="user", content=text)


async def ask_sign(by: str, messages: tuple[Message, ...], ask: Ask | None, manner: Manner) -> Verdict:
    """The verdict of one call. A failed call is `unverified`; a limit that was reached is raised.

    A model that begins to think is asked again with its thinking closed, and from then on at once so.
    """
    if ask is None:
        return unverified(by, "it asks a model, and none was bound")
    try:
        found = signs(await ask(_request(messages, manner)))
        if found.begins.strip() == THINK and not manner.thinks:
            manner.thinks = True
            found = signs(await ask(_request(messages, manner)))
    except ModelError as error:
        return unverified(by, f"the model could not be asked: {error}")
    return unverified(by, found.missing) if found.score is None else scored(by, found.score)


def _request(messages: tuple[Message, ...], manner: Manner) -> ModelRequest:
    sampling = Sampling(temperature=0.0, max_tokens=1, logprobs=True, top_logprobs=ALTERNATIVES)
    prefix = f"{THINK}\n\n</think>\n\n" if manner.thinks else ""
    return ModelRequest(messages=messages, sampling=sampling, prefix=prefix, raw=manner.thinks)


def signs(completion: Completion) -> Signs:
    """P(+) of the first token's alternatives.

    A sign that was not reported is no more likely than the least that was, nor than what the reported leave over; it
    is given that bound, so that a reply that is mostly about something else does not look certain.
    """
    if not completion.alternatives or not completion.alternatives[0]:
        return Signs(None, "the server reports no alternatives of a token (vLLM, llama.cpp and some hosted servers do)")
    first = [each for each in completion.alternatives[0] if not math.isnan(each.logprob)]
    plus, minus = _mass(first, _PLUS), _mass(first, _MINUS)
    if plus is None and minus is None:
        begins = max(first, key=lambda each: each.logprob).token if first else ""
        missing = f"neither + nor - is among the first token's alternatives; it begins with {begins[:20]!r}"
        return Signs(None, missing, begins)
    rest = max(0.0, 1.0 - sum(math.exp(min(0.0, each.logprob)) for each in first))
    bound = min(rest, math.exp(min(each.logprob for each in first)))
    up, down = bound if plus is None else plus, bound if minus is None else minus
    return Signs(up / (up + down)) if up + down > 0.0 else Signs(None, "both signs have probability 0")


def _mass(alternatives: Sequence[Alternative], sign: frozenset[str]) -> float | None:
    """The probability of all tokens that are this sign but for spaces."""
    found = [each.logprob for each in alternatives if each.token.strip().strip(_SPACE).strip() in sign]
    return math.fsum(math.exp(min(0.0, logprob)) for logprob in found) if found else None
