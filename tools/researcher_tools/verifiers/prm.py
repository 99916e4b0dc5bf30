"""The `prm` verifier: a generative process reward model; any chat model that reports alternatives of a token."""

from __future__ import annotations

from collections.abc import Sequence

from researcher.protocols import Ask, Verifier
from researcher.types import Task, Verdict, VerdictStatus
from researcher_tools.verifiers.aggregates import aggregate_of, lines
from researcher_tools.verifiers.reward import Manner, ask_sign, process_messages
from researcher_tools.verifiers.verdicts import scored, unverified

MOST = 256
"""Steps of a whole solution that are scored; each is a call."""


class ProcessReward:
    """Scores the last of some steps by the probability of `+` against `-`; `prm:min` aggregates whole solutions so.

    A whole solution costs one call a line, and each call's prompt begins with the one before, which servers keep. A
    search scores its steps one by one with `verify_step` and aggregates itself.
    """

    reads_solution = True

    def __init__(self, aggregate: str = "last", *, ask: Ask | None = None, manner: Manner | None = None) -> None:
        self.name = "prm" if aggregate == "last" else f"prm:{aggregate}"
        self._how, self._aggregate, self._ask = aggregate, aggregate_of("prm", aggregate), ask
        self._manner = manner or Manner()

    def bound(self, ask: Ask) -> Verifier:
        """The verifier that asks through `ask`."""
        return ProcessReward(self._how, ask=ask, manner=self._manner)

    async def verify_step(self, task: Task, steps: Sequence[str]) -> Verdict:
        """The score of the last step; unverified where the model could not be asked or said neither sign."""
        return await ask_sign(self.name, process_messages(task.question, steps), self._ask, self._manner)

    async def verify(self, task: Task, answer: str) -> Verdict:
        """The aggregate of the scores of a solution's lines; unverified if one of them could not be scored."""
        steps = lines(answer)
        if not steps or len(steps) > MOST:
            reason = f"the solution has {len(steps)} lines; between 1 and {MOST} are scored"
            return unverified(self.name, reason)
        scores: list[float] = []
        for upto in range(1, len(steps) + 1):
            if self._how == "last" and upto < len(steps):
                continue
            verdict = await self.verify_step(task, steps[:upto])
            if verdict.status is VerdictStatus.UNVERIFIED or verdict.score is None:
                return unverified(self.name, f"step {upto}: {verdict.reason}")
            scores.append(verdict.score)
        return scored(self.name, self._aggregate(scores))
