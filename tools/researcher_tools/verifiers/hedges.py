"""Words that take an answer back or leave it open: `hedge("3 or 5")` is "or"."""

from __future__ import annotations

import re

_HEDGE = re.compile(
    r"\b(or|nor|not|isn't|isn\u2019t|never|either|neither|both|between|unless|instead|but|wrong|incorrect|false"
    r"|maybe|perhaps|possibly|probably|likely|unlikely|might|could|guess|unsure|uncertain"
    r"|about|around|roughly|approximately|approx|almost|nearly)\b|[\u2248?]",
    re.IGNORECASE,
)


def hedge(text: str) -> str | None:
    """The first word that hedges, or None. For answers that should be a number or a letter, not for prose at large."""
    match = _HEDGE.search(text)
    return match.group().lower() if match else None
