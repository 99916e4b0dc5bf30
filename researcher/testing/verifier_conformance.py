"""What every Verifier must do, as plain checks: `await check_verifier(verifier, task, right="24", wrong="25")`."""

from __future__ import annotations

import anyio

from researcher.protocols import Verifier
from researcher.types import Task, Verdict, VerdictStatus

HOSTILE = (
    "",
    " ",
    "\n\n",
    "\0",
    "\ud800",
    "\x1b[2J",
    "(" * 5_000,
    "-" * 5_000 + "1",
    "9" * 100_000,
    "__import__('os').system('true')",
    "<answer></answer>",
    "correct",
    "True",
    "None",
    "nan",
    "inf",
    "1e999",
    "0/0",
    "\u202e42",
    "x" * 100_000,
)
"""Answers that are wrong for any sane task, and that must neither raise nor take long."""


async def check_verifier(verifier: Verifier, task: Task, *, right: str, wrong: str, seconds: float = 30.0) -> None:
    """Pass if the verifier tells right from wrong, keeps its word, and survives every hostile answer.

    `seconds` is the time that any one verdict may take.
    """
    assert verifier.name.strip(), "the verifier has no name"
    await _expect(verifier, task, right, VerdictStatus.CORRECT, seconds)
    await _expect(verifier, task, wrong, VerdictStatus.WRONG, seconds)
    for answer in HOSTILE:
        verdict = await _verdict(verifier, task, answer, seconds)
        assert verdict.status is not VerdictStatus.CORRECT, f"{answer[:40]!r} was taken as right"
    await _expect(verifier, task, right, VerdictStatus.CORRECT, seconds)
    bare = await _verdict(verifier, Task(question=task.question), right, seconds)
    assert bare.status is VerdictStatus.UNVERIFIED, "without anything to check against, the verdict must be unverified"
    assert bare.reason.strip(), "an unverified verdict must say why"


async def _expect(verifier: Verifier, task: Task, answer: str, status: VerdictStatus, seconds: float) -> None:
    verdict = await _verdict(verifier, task, answer, seconds)
    assert verdict.status is status, f"{answer!r} is {verdict.status} ({verdict.reason}), not {status}"


async def _verdict(verifier: Verifier, task: Task, answer: str, seconds: float) -> Verdict:
    with anyio.fail_after(seconds):
        verdict = await verifier.verify(task, answer)
    assert verdict.by == verifier.name, "the verdict is not signed with the verifier's name"
    assert verdict.score is None or 0.0 <= verdict.score <= 1.0, "the score is not in [0, 1]"
    return verdict
