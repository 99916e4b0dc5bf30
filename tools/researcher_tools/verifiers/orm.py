"""The `orm` verifier: a generative outcome reward model; any chat model that reports alternatives of a token."""

from __future__ import annotations

from researcher.protocols import Ask, Verifier
from researcher.types import Task, Verdict
from researcher_tools.verifiers.reward import Manner, ask_sign, outcome_messages


class OutcomeReward:
    """Scores a whole solution by the probability of `+` against `-`. Nothing is scored until it is bound to a model."""

    name = "orm"
    reads_solution = True

    def __init__(self, *, ask: Ask | None = None, manner: Manner | None = None) -> None:
        self._ask, self._manner = ask, manner or Manner()

    def bound(self, ask: Ask) -> Verifier:
        """The verifier that asks through `ask`."""
        return OutcomeReward(ask=ask, manner=self._manner)

    async def verify(self, task: Task, answer: str) -> Verdict:
        """The score of the solution; unverified where the model could not be asked or said neither sign."""
        return await ask_sign(self.name, outcome_messages(task.question, answer), self._ask, self._manner)
