"""The three verdicts, as verifiers write them: `settled(name, right, why_not)` and `unverified(name, reason)`."""

from __future__ import annotations

from researcher.types import Verdict, VerdictStatus

PASS = 0.5
"""A score from here on counts as `correct`, where a score is all there is."""


def settled(by: str, right: bool, reason: str = "") -> Verdict:
    """Correct, or wrong for this reason."""
    status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
    return Verdict(status=status, by=by, score=float(right), reason="" if right else reason)


def scored(by: str, score: float, reason: str = "") -> Verdict:
    """What a score in [0, 1] says: `correct` from `PASS` on."""
    status = VerdictStatus.CORRECT if score >= PASS else VerdictStatus.WRONG
    return Verdict(status=status, by=by, score=score, reason=reason)


def unverified(by: str, reason: str) -> Verdict:
    """The check could not run, for this reason; that is never "wrong"."""
    return Verdict(status=VerdictStatus.UNVERIFIED, by=by, reason=reason)
