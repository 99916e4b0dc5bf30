"""`find_quote(quote, text)` says where a quote stands in a text, before any judge is asked about it. Pure."""

from __future__ import annotations

import re

_PLAIN = str.maketrans(
    {**dict.fromkeys("‘’‚‛′`", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-")}
)
"""One character for one, so that offsets stay what they are."""


def find_quote(quote: str, text: str) -> tuple[int, int] | None:
    """Where the quote first stands in the text: characters [start, end) of `text` as it is; None if nowhere.

    Only runs of white space and the shapes of quotation marks and dashes may differ. Case, spelling and
    punctuation may not: a quote that was touched up is not a quote.
    """
    words = quote.translate(_PLAIN).split()
    if not words:
        return None
    start = text.find(quote.strip())
    if start >= 0:
        return start, start + len(quote.strip())
    match = re.search(r"\s+".join(map(re.escape, words)), text.translate(_PLAIN))
    return match.span() if match else None
