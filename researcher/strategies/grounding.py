"""Whether a synthesis keeps to its findings: a check of names and numbers, without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from researcher.strategies.prompts import Finding

_WORD = re.compile(r"\w+")


def strangers(answer: str, findings: Iterable[Finding]) -> set[str]:
    """The names (words with a capital letter) of an answer that stand nowhere in the findings.

    Case is not looked at, and common words that begin a sentence are no names. Numbers may be the sum or the
    difference of what was found, and are left alone.
    """
    known = {
        word.casefold()
        for finding in findings
        for text in (finding.question, finding.answer, *finding.quotes)
        for word in _WORD.findall(text)
    }
    return {word for word in _WORD.findall(answer) if word[0].isupper() and word.casefold() not in known | COMMON}


COMMON = frozenset(
    _WORD.findall(
        "a an and at both by for from he her his i in it its neither no none of on only she so that the their there "
        "they this those to unknown yes"
    )
)
"""Words that begin sentences and name nothing."""
