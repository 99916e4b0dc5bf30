"""The prompts that strategies send to any model, and the parsers of what comes back.

The embedded reasoner is trained on exactly these words (a change here wants a new training run); a large model
reads them as ordinary instructions. A final message is evidence lines `[17] "verbatim sentence"` and then
`<answer>...</answer>`. Nothing here knows a server, a tool or a clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

UNKNOWN = "unknown"
"""The answer when the documents do not say."""

Verdict = Literal["+", "-"]


class Prompt(NamedTuple):
    """A system and a user message."""

    system: str
    user: str


class Finding(NamedTuple):
    """What one thread found: its question, its answer and the sentences that the answer rests on."""

    question: str
    answer: str
    quotes: tuple[str, ...] = ()


class Quote(NamedTuple):
    """A quoted sentence and the number of the passage it is said to stand in."""

    n: int
    text: str


_DOCUMENTS = (
    "Answer the question from the documents. Search, and quote each sentence your answer rests on as "
    '[number] "sentence". End with <answer>...</answer>; answer unknown if the documents do not say.'
)
_PYTHON = "Answer the question. Use the tools to compute. End with <answer>...</answer>."
_PLAIN = "Answer the question. Think step by step and check. End with <answer>...</answer>."
_SPLIT = (
    "Split the question into independent sub-questions, one a line, numbered. "
    "A question that is one chain of steps stays one."
)
_SYNTHESIS = (
    "Write the answer from the findings: one sentence a finding, each ending in its number like [1]. "
    "End with <answer>...</answer>."
)
_JUDGE = "Does the evidence show that the answer is right? Reply + or -."

_DOCUMENT_TOOLS = frozenset({"search", "read", "fetch"})


def answer_prompt(question: str, tools: Collection[str] = ()) -> Prompt:
    """The prompt of one reasoner thread that has these tools (names)."""
    if _DOCUMENT_TOOLS.intersection(tools):
        return Prompt(_DOCUMENTS, question)
    return Prompt(_PYTHON if tools else _PLAIN, question)


def split_prompt(question: str) -> Prompt:
    """Asks for the sub-questions that can be researched in parallel; read with `parse_subquestions`."""
    return Prompt(_SPLIT, question)


def synthesis_prompt(question: str, findings: Iterable[Finding]) -> Prompt:
    """Asks for a cited answer from numbered findings; its `[1]` is the first finding, not a passage."""
    lines = [f"[{i}] {_finding(finding)}" for i, finding in enumerate(findings, 1)]
    return Prompt(_SYNTHESIS, "\n".join([f"Question: {question}", "Findings:", *lines]))


def judge_prompt(question: str, answer: str, evidence: Iterable[Quote]) -> Prompt:
    """Asks whether the evidence supports the answer; the reply is one token, `+` or `-`."""
    lines = [f'[{quote.n}] "{quote.text}"' for quote in evidence]
    return Prompt(_JUDGE, "\n".join([f"Question: {question}", f"Answer: {answer}", "Evidence:", *lines]))


def _finding(finding: Finding) -> str:
    head = f"{finding.question} -> {finding.answer}"
    quotes = " ".join(f'"{quote}"' for quote in finding.quotes)
    return f"{head}: {quotes}" if quotes else head


_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_QUOTE = re.compile(r'^\s*\[(\d+)\]\s*["\u201c](.+)["\u201d]\s*$', re.MULTILINE)
_NUMBERED = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+(\S.*?)\s*$", re.MULTILINE)
_VERDICT = re.compile(r"^[\s\"'`*(]*([+\-\u2212])")


def parse_answer(text: str) -> str | None:
    """What stands in the last `<answer>` block, else in the last `\\boxed{}`, else None; never an empty string."""
    found = [match.strip() for match in _ANSWER.findall(text)]
    answer = found[-1] if found else _boxed(text)
    return answer or None


def parse_quotes(text: str) -> list[Quote]:
    """The evidence lines of a final message, in order."""
    return [Quote(int(n), quote) for n, quote in _QUOTE.findall(text)]


def parse_subquestions(text: str) -> list[str]:
    """The numbered (or bulleted) lines, each once, in order; a reply of one bare line is that line."""
    found = [str(line) for line in _NUMBERED.findall(text)]
    if not found:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        found = lines if len(lines) == 1 else []
    return list(dict.fromkeys(found))


def parse_verdict(text: str) -> Verdict | None:
    """The sign that the reply begins with, or None if it begins with anything else."""
    match = _VERDICT.match(text)
    if match is None:
        return None
    return "+" if match.group(1) == "+" else "-"


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin = start + len("\\boxed{")
    depth = 1
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i].strip()
    return None
