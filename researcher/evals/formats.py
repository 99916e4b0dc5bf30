"""The published formats of question sets: which one a record is in, and the problem it holds.

| format | fields | judged by |
|---|---|---|
| GSM8K | question, answer (a worked solution that ends in `#### 72`) | numeric |
| MATH | problem, solution (with `\\boxed{...}`), perhaps answer | numeric |
| AIME | problem, answer | numeric |
| GPQA | Question, Correct Answer, Incorrect Answer 1 to 3 | multiple_choice |
| multiple choice | question, choices (or options), answer: a letter, an index or the text | multiple_choice |
| plain | question, answer | numeric where the answer is a number, else exact |

Field names are read without regard to case, and `_` as a space.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from researcher_tools.verifiers.numeric import plain_number

from researcher.evals.problem import Problem
from researcher.strategies.prompts import parse_answer

Record = Mapping[str, Any]


class Unfit(ValueError):
    """Why a record is not in the format."""


class Format(NamedTuple):
    """A format by name: the fields it must have, and how a record is read (raises Unfit)."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[str, Record], Problem]
    also: Callable[[Record], bool] = lambda record: True
    """What else tells it from a format with the same fields."""

    def fits(self, record: Record) -> bool:
        """Whether the record looks like one of this format."""
        return all(name in record for name in self.fields) and self.also(record)


def read_gsm8k(id: str, record: Record) -> Problem:
    """A GSM8K record: the gold is what stands behind the last `####`."""
    _, mark, gold = text_of(record, "answer").rpartition("####")
    gold = gold.strip().lstrip("$").replace(",", "")
    if not mark or plain_number(gold) is None:
        raise Unfit("its answer does not end in #### and a number")
    return Problem(id, text_of(record, "question"), "numeric", gold=gold)


def read_math(id: str, record: Record) -> Problem:
    """A MATH record: the gold is its `answer`, else the last box of its solution."""
    gold = text_of(record, "answer") if record.get("answer") else _boxed(text_of(record, "solution"))
    return Problem(id, text_of(record, "problem"), "numeric", gold=gold)


def read_aime(id: str, record: Record) -> Problem:
    """An AIME record: the answer is an integer from 0 to 999, or what its competition allows."""
    return Problem(id, text_of(record, "problem"), "numeric", gold=text_of(record, "answer"))


def read_gpqa(id: str, record: Record) -> Problem:
    """A GPQA record: the options are shuffled, always in the same way for the same question."""
    right = text_of(record, "correct answer")
    wrong = [text_of(record, f"incorrect answer {i}") for i in (1, 2, 3)]
    question = text_of(record, "question")
    options = [right, *wrong]
    random.Random(f"gpqa/{question}").shuffle(options)
    return _choice(id, question, options, options.index(right))


def read_choices(id: str, record: Record) -> Problem:
    """A record with a list of choices; its answer is an index from 0, a letter, or one of the texts."""
    options = record.get("choices", record.get("options"))
    if isinstance(options, Mapping):
        options = list(options.get("text", options.values()))
    if not isinstance(options, list) or not 2 <= len(options) <= 26:
        raise Unfit("its choices are not a list of 2 to 26 texts")
    texts, answer = [str(option) for option in options], record["answer"]
    letters = ascii_uppercase[: len(texts)]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(texts):
        right = answer
    elif str(answer) in texts:
        right = texts.index(str(answer))
    elif len(str(answer).strip()) == 1 and str(answer).strip().upper() in letters:
        right = letters.index(str(answer).strip().upper())
    else:
        raise Unfit("its answer is none of its choices")
    return _choice(id, text_of(record, "question"), texts, right)


def read_plain(id: str, record: Record) -> Problem:
    """A question and its answer."""
    gold = text_of(record, "answer")
    grader = "numeric" if plain_number(gold) is not None else "exact"
    return Problem(id, text_of(record, "question"), grader, gold=gold)


FORMATS = (
    Format("GPQA", ("question", "correct answer", "incorrect answer 1"), read_gpqa),
    Format("multiple choice", ("question", "choices", "answer"), read_choices),
    Format("multiple choice", ("question", "options", "answer"), read_choices),
    Format("GSM8K", ("question", "answer"), read_gsm8k, also=lambda record: "####" in str(record["answer"])),
    Format("MATH", ("problem", "solution"), read_math),
    Format("AIME", ("problem", "answer"), read_aime),
    Format("plain", ("question", "answer"), read_plain),
)
"""In the order in which they are tried."""


def plain_fields(record: Mapping[str, Any]) -> Record:
    """The record with its field names in the form that formats know."""
    return {" ".join(name.replace("_", " ").split()).casefold(): value for name, value in record.items()}


def format_of(record: Record) -> Format | None:
    """The format of a record with plain field names; None where it is in none."""
    return next((each for each in FORMATS if each.fits(record)), None)


def text_of(record: Record, name: str) -> str:
    """A field's text. Raises Unfit where there is none."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise Unfit(f"it has no {name}" if name not in record else f"its {name} is not a text")
    return str(value).strip()


def _boxed(solution: str) -> str:
    gold = parse_answer(solution) if "\\boxed" in solution else None
    if gold is None:
        raise Unfit("its solution has no \\boxed answer")
    return gold


def _choice(id: str, question: str, options: Sequence[str], right: int) -> Problem:
    lines = [f"{letter}) {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    shown = "\n".join([question, *lines, "Answer with the letter of the right option."])
    return Problem(id, shown, "multiple_choice", gold=ascii_uppercase[right], data={"options": list(options)})
