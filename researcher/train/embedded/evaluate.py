"""Held-out accuracy of the GGUF under llama.cpp, by skill: greedy, and by the vote of several samples."""

from __future__ import annotations

import ast
import json
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from researcher_tools.corpus import Corpus, render

from researcher.strategies.prompts import (
    parse_answer,
    parse_choice,
    parse_lines,
    parse_quotes,
    parse_subquestions,
    parse_value,
    parse_verdict,
)
from researcher.train.embedded import data
from researcher.train.embedded.served import Served
from researcher.train.embedded.tasks.countdown import value_of
from researcher.train.embedded.tasks.example import Example, Message, Skill
from researcher.train.embedded.tasks.puzzles import moves, reachable

MAX_TURNS = 9
SOLVED: tuple[Skill, ...] = ("countdown_3", "countdown_4", "step_3", "step_4", "step_24", "revise", "aggregate")
"""The skills whose answer is an expression for the target."""


class Outcome(NamedTuple):
    """How one conversation went."""

    answer: str | None
    correct: bool
    well_formed: bool
    """Every turn was a call of a tool that there is, or ended the conversation in the form that was asked for."""
    quoted: bool
    """Each quote stands verbatim in the documents; an answer over documents has one unless it is `unknown`."""
    numbered: bool
    """Each quote stands in the very passage whose number it gives."""
    tokens: int
    seconds: float
    messages: list[Message]


class Score(NamedTuple):
    """Shares over the problems of one skill."""

    skill: Skill
    problems: int
    accuracy: float
    low: float
    high: float
    well_formed: float
    quoted: float
    numbered: float
    tokens: float
    """Generated tokens of a problem, on average."""


def solve(served: Served, example: Example, *, temperature: float = 0.0, seed: int = 0) -> Outcome:
    """Let the model work on one problem with the real tools."""
    corpus = Corpus.from_texts(example.texts)
    messages = list(example.messages[:2])
    tokens, formed = 0, False
    content = ""
    began = time.monotonic()
    for _ in range(MAX_TURNS):
        choice = served.chat(messages, example.tools, temperature=temperature, seed=seed)
        tokens += choice["usage"]["completion_tokens"]
        message: Message = choice["message"]
        messages.append(message)
        content = message.get("content") or ""
        calls = message.get("tool_calls") or []
        if choice["finish_reason"] == "length":
            break
        if not calls:
            formed = _read(example, content) is not None
            break
        results = [_run(corpus, example, call["function"]) for call in calls]
        if None in results:
            break
        messages += [
            {"role": "tool", "content": text, "tool_call_id": call["id"]}
            for text, call in zip(results, calls, strict=True)
        ]
    answer = _read(example, content)
    quoted, numbered = _quotes(corpus, example, content, answer)
    corpus.close()
    return Outcome(
        answer, is_right(example, answer), formed, quoted, numbered, tokens, time.monotonic() - began, messages
    )


def _run(corpus: Corpus, example: Example, function: dict[str, str]) -> str | None:
    try:
        arguments = json.loads(function["arguments"])
        match function["name"], arguments:
            case ("search", {"query": str(query)}) if "search" in example.tools:
                return render(corpus.search(query))
            case ("read", {"source": str(source)}) if "read" in example.tools:
                return render(corpus.read(source))
            case ("python", {"code": str(code)}) if "python" in example.tools:
                return _python(code)
    except ValueError:
        pass
    return None


def _python(code: str) -> str:
    """What a program that prints one sum prints; the evaluation needs no more of Python than this."""
    match = re.fullmatch(r"print\((.*)\)\s*", code)
    if match is None:
        return "SyntaxError: invalid syntax"
    numbers = [int(n) for n in re.findall(r"\d+", match[1])]
    try:
        ast.parse(match[1], mode="eval")
    except SyntaxError as error:
        return f"SyntaxError: {error.msg}"
    return str(value_of(match[1], numbers))


def _read(example: Example, content: str) -> str | None:
    match example.skill:
        case "splitting":
            found = parse_subquestions(content)
            return "\n".join(f"{i}. {text}" for i, text in enumerate(found, 1)) or None
        case "judging" | "process" | "outcome":
            return parse_verdict(content) if len(content) == 1 else None
        case "value":
            return parse_value(content)
        case "choose":
            chosen = parse_choice(content, of=9)
            return None if chosen is None else str(chosen + 1)
        case "propose":
            return "\n".join(parse_lines(content)) or None
    return parse_answer(content)


def is_right(example: Example, answer: str | None) -> bool:
    """Whether this answers the problem, checked without the trace."""
    if answer is None:
        return False
    if example.skill in SOLVED:
        numbers, target = stated(example)
        return value_of(answer, numbers) == target
    if example.skill == "propose":
        return proposes(example, answer)
    return canonical(answer) == canonical(example.answer)


def proposes(example: Example, answer: str) -> bool:
    """Whether every proposed line is a legal step and, where the state allows it, one still leads to the target."""
    numbers, target = stated(example)
    _, _, *steps = example.messages[1]["content"].splitlines()
    state = tuple(int(n) for n in steps[-1].partition(" left ")[2].split()) if steps else tuple(sorted(numbers))
    if len(state) == 1:
        return answer == example.answer
    legal = {f"{move.text} left {' '.join(map(str, left))}": left for move, left in moves(state)}
    lines = answer.splitlines()
    live = not reachable(state, target) or any(line in legal and reachable(legal[line], target) for line in lines)
    return live and all(line in legal for line in lines)


def stated(example: Example) -> tuple[list[int], int]:
    """The numbers and the target of a number puzzle, from its question."""
    question: str = example.messages[1]["content"].splitlines()[0].removeprefix("Question: ")
    *numbers, target = (int(n) for n in re.findall(r"\d+", question))
    if question.startswith("Make"):  # the target comes first
        target, *numbers = (int(n) for n in re.findall(r"\d+", question))
    return numbers, target


def canonical(answer: str) -> str:
    """The form in which answers are compared and counted."""
    return " ".join(answer.casefold().split()).rstrip(".")


def _quotes(corpus: Corpus, example: Example, content: str, answer: str | None) -> tuple[bool, bool]:
    if example.skill not in data.DOCUMENT_SKILLS or (answer is not None and canonical(answer) == "unknown"):
        return True, True
    quotes = parse_quotes(content)
    passages = [corpus.passage(quote.n) for quote in quotes]
    stand = [any(quote.text in text for text in example.texts.values()) for quote in quotes]
    numbered = [p is not None and q.text in p.text for p, q in zip(passages, quotes, strict=True)]
    return bool(quotes) and all(stand), bool(quotes) and all(numbered)


def greedy(
    served: Served, skill: Skill, count: int, *, foreign: bool = False, seed: int = data.EVAL_SEED
) -> tuple[Score, list[Outcome], list[Example]]:
    """The score on `count` held-out problems, at temperature 0."""
    examples = data.held_out(skill, count, seed, foreign=foreign)
    with ThreadPoolExecutor(served.slots) as pool:
        outcomes = list(pool.map(lambda example: solve(served, example), examples))
    return score(skill, outcomes), outcomes, examples


def score(skill: Skill, outcomes: Sequence[Outcome]) -> Score:
    """The shares, the accuracy with its 95 % interval."""
    n = len(outcomes)
    right = sum(outcome.correct for outcome in outcomes)
    low, high = interval(right, n)
    formed = sum(outcome.well_formed for outcome in outcomes) / n
    quoted = sum(outcome.quoted for outcome in outcomes) / n
    numbered = sum(outcome.numbered for outcome in outcomes) / n
    return Score(
        skill, n, right / n, low, high, formed, quoted, numbered, sum(outcome.tokens for outcome in outcomes) / n
    )


def interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959964
    share = right / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


class Vote(NamedTuple):
    """What several samples of each problem give."""

    skill: Skill
    problems: int
    samples: int
    temperature: float
    single: float
    """Accuracy of one sample, on average."""
    majority: float
    """Accuracy of the most frequent canonical answer; a tie goes to the one that came first."""
    greedy: float
    """Accuracy of one greedy answer to the same problems."""
    verified: float
    """Share of problems where a sample is right: what an exact verifier would choose, where the task has one."""


def vote(served: Served, skill: Skill, count: int, samples: int = 16, temperature: float = 0.8) -> Vote:
    """Majority of `samples` on `count` held-out problems; no answer casts no vote."""
    examples = data.held_out(skill, count)
    jobs = [(example, i) for example in examples for i in range(samples)]
    with ThreadPoolExecutor(served.slots) as pool:
        best = list(pool.map(lambda example: solve(served, example), examples))
        outcomes = list(pool.map(lambda job: solve(served, job[0], temperature=temperature, seed=job[1] + 1), jobs))
    majority = verified = 0
    for i, example in enumerate(examples):
        mine = outcomes[i * samples : (i + 1) * samples]
        counts = Counter(canonical(outcome.answer) for outcome in mine if outcome.answer is not None)
        majority += bool(counts) and is_right(example, counts.most_common(1)[0][0])
        verified += any(outcome.correct for outcome in mine)
    single = sum(outcome.correct for outcome in outcomes) / len(outcomes)
    first = score(skill, best).accuracy
    return Vote(skill, count, samples, temperature, single, majority / count, first, verified / count)


class Ranking(NamedTuple):
    """How well the two verdicts are told apart."""

    skill: Skill
    problems: int
    accuracy: float
    auc: float
    """Chance that a right thing gets a higher probability of `+` than a wrong one."""


def rank(served: Served, skill: Skill, count: int) -> Ranking:
    """The accuracy of `+` and `-`, and the area under the curve by the difference of their log-probabilities."""
    examples = data.held_out(skill, count)
    with ThreadPoolExecutor(served.slots) as pool:
        margins = list(pool.map(lambda example: _margin(served, example), examples))
    right = [m for m, example in zip(margins, examples, strict=True) if example.answer == "+"]
    wrong = [m for m, example in zip(margins, examples, strict=True) if example.answer == "-"]
    pairs = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    hits = sum(m > 0 for m in right) + sum(m <= 0 for m in wrong)
    return Ranking(skill, count, hits / count, pairs / (len(right) * len(wrong)))


def _margin(served: Served, example: Example) -> float:
    choice = served.chat(example.messages[:2], limit=1, logprobs=True, top_logprobs=10)
    found = {top["token"]: top["logprob"] for top in choice["logprobs"]["content"][0]["top_logprobs"]}
    return float(found.get("+", -20.0)) - float(found.get("-", -20.0))
