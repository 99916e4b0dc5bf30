"""The `consensus` verifier: whether an answer agrees with most of some given answers. It is not a check of truth.

For data without answers (TTRL, arXiv 2504.16084: the majority's answer stands in for the label). `correct` here means
"what most of the votes say" and nothing more; a model that is often wrong in the same way is confirmed in it. So it
says nothing where the votes say nothing: fewer than `least` votes for the largest class, or a tie for it. The score is
the share of all votes that agree with the answer; a vote without an answer (empty) counts as one that does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from researcher.errors import UserError
from researcher.types import Task, Verdict, VerdictStatus
from researcher_tools.verifiers.exact import normal
from researcher_tools.verifiers.numeric import plain_number
from researcher_tools.verifiers.verdicts import unverified

LEAST = 2


class Consensus:
    """Checks against `task.data["votes"]`, or the `votes` given here; `consensus:5` asks for 5 equal votes or more."""

    name = "consensus"

    def __init__(self, least: str = "", *, votes: Sequence[str] | None = None) -> None:
        if least and not (least.isascii() and least.isdecimal() and len(least) < 7 and int(least) > 0):
            raise UserError(f"The verifier consensus takes a number of votes, like consensus:5, not {least[:40]!r}.")
        self._least = int(least) if least else LEAST
        self._votes = votes

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct for the answer of the largest class, wrong for others, unverified where there is no such class."""
        votes = task.data.get("votes") if self._votes is None else self._votes
        if not (isinstance(votes, (list, tuple)) and votes and all(isinstance(vote, str) for vote in votes)):
            return unverified(self.name, "the task has no votes")
        classes = Counter(vote_class(vote) for vote in votes if vote.strip())
        leaders = classes.most_common(2)
        if not leaders or leaders[0][1] < self._least:
            return unverified(self.name, f"no answer has {self._least} votes")
        if len(leaders) == 2 and leaders[0][1] == leaders[1][1]:
            return unverified(self.name, f"two answers have {leaders[0][1]} votes each")
        mine = vote_class(answer)
        agree = classes[mine] if answer.strip() else 0
        right = mine == leaders[0][0] and agree > 0
        reason = f"{agree} of {len(votes)} votes agree; agreement is no proof"
        status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
        return Verdict(status=status, by=self.name, score=agree / len(votes), reason=reason)


def vote_class(text: str) -> str:
    """The text under which equal answers count together: plain numbers by value, others as `exact` compares them."""
    number = plain_number(text) if len(text) <= 1_000 else None
    return normal(text) if number is None else str(number)
