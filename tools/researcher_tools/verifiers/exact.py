"""The `exact` verifier: the answer is the gold text, but for case, spacing and outer punctuation."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from researcher.types import Task, Verdict, VerdictStatus


def normal(text: str) -> str:
    """The text in the form that is compared."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.strip("\"'`“”‘’ ").rstrip(".!;, ").strip("\"'`“”‘’ ")


class Exact:
    """Checks against `task.gold` and, where there are some, the texts of `task.data["aliases"]`."""

    name = "exact"

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong, or unverified for a task without gold."""
        aliases = task.data.get("aliases", ())
        known: Iterable[object] = aliases if isinstance(aliases, (list, tuple)) else ()
        golds = [gold for gold in (task.gold, *known) if isinstance(gold, str) and normal(gold)]
        if not golds:
            return Verdict(status=VerdictStatus.UNVERIFIED, by=self.name, reason="the task has no gold answer")
        right = normal(answer) in {normal(gold) for gold in golds}
        status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
        return Verdict(status=status, by=self.name, score=float(right), reason="" if right else "not the gold answer")
