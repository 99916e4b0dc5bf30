"""From the quotes in a final message to claims that rest on spans of stored sources."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from researcher.graph.quotes import find_quote
from researcher.strategies.prompts import parse_quotes
from researcher.types import Claim, Evidence, PassageRef


class SourceTexts:
    """The text of stored sources by sha256, the latest few kept decoded."""

    def __init__(self, get_blob: Callable[[str], bytes], keep: int = 64) -> None:
        self._get_blob = get_blob
        self._keep = keep
        self._texts: OrderedDict[str, str] = OrderedDict()

    def __call__(self, sha256: str) -> str:
        """The source's text. Raises StoreError where the blob is missing or damaged."""
        text = self._texts.get(sha256)
        if text is None:
            text = self._get_blob(sha256).decode("utf-8")
            self._texts[sha256] = text
            if len(self._texts) > self._keep:
                self._texts.popitem(last=False)
        return text


def claims_of(final: str, passages: Mapping[int, PassageRef], text_of: Callable[[str], str]) -> Iterable[Claim]:
    """One claim for each quote of a final message; `passages` are those the thread has read.

    A quote is looked for in the passage it cites, then in that passage's source, then in the other passages: a model
    may mistake a number, and what counts is that it read the sentence. Without evidence where it is in none.
    """
    for number, quote in parse_quotes(final):
        cited = passages.get(number)
        found = () if cited is None else locate(quote, cited, text_of(cited.sha256))
        others = (passage for passage in passages.values() if passage is not cited)
        while not found and (passage := next(others, None)) is not None:
            found = locate(quote, passage, text_of(passage.sha256))
        yield Claim(text=quote, evidence=found)


LEAST_WORDS, LEAST_CHARACTERS = 3, 12
"""A shorter quote proves nothing, unless it is all that the passage says."""


def locate(quote: str, passage: PassageRef, text: str) -> tuple[Evidence, ...]:
    """The span of the quote in its passage, else anywhere in the passage's source, else nothing."""
    shown = text[passage.start : passage.end]
    short = len(quote.split()) < LEAST_WORDS and len(quote.strip()) < LEAST_CHARACTERS
    if short and quote.strip() != shown.strip():
        return ()
    for part, offset in ((shown, passage.start), (text, 0)):
        span = find_quote(quote, part)
        if span is not None and _whole_words(part, *span):
            return (Evidence(sha256=passage.sha256, start=offset + span[0], end=offset + span[1]),)
    return ()


def _whole_words(text: str, start: int, end: int) -> bool:
    """Whether the span cuts no word or number in two."""
    before, after = text[start - 1 : start + 1] if start else "", text[end - 1 : end + 1]
    return not (len(before) == 2 and before.isalnum()) and not (len(after) == 2 and after.isalnum())
