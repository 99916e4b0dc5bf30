"""Partial rollouts (Kimi k1.5): turns sampled in pieces, of which a run makes only so many; later runs go on.

A piece is a thread of kind `step` that continues the one before it by its token ids. With `pieces` set a run ends
without an answer while turns are unfinished; the same log with a larger `pieces` goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace
from pydantic import Field

from researcher.strategies.base import InPieces, conclude, failure, seed_of, wants_support
from researcher.strategies.chain_of_thought import Chain
from researcher.types import FinishReason, Message, Outcome, Sampling, ThreadLimits, Work
from researcher.views import GraphView, Plan, ThreadInfo, View

NAME = "partial"
BROKEN = (Outcome.FAILED, Outcome.REFUSED, Outcome.CANCELLED)
LEAST_LOOP, LONGEST_LOOP = 64, 4096
"""Characters: what repeats must be this long in all, and so much of a turn's end is looked at."""
Turn = Sequence[ThreadInfo]


class Partial(InPieces, Chain):
    """Samples turns in pieces of a bounded length, stops those that repeat themselves, and votes on the ended ones."""

    name: Literal["partial"] = "partial"
    n: int = Field(default=8, ge=1, description="turns, each a rollout")
    piece: int = Field(default=256, ge=1, description="tokens of a piece; `max_tokens` is the limit of a whole turn")
    pieces: int = Field(default=0, ge=0, description="pieces a turn may have yet, the rest is a later run's; 0: all")
    repeats: int = Field(
        default=8, ge=0, description="times the end of a turn may say the same before it is stopped; 0: any"
    )

    @property
    def cancels(self) -> bool:
        """Whether it stops threads early."""
        return False

    def plan(self, view: View) -> Plan:
        """Start the next piece of every turn that may have one; at the end, the vote."""
        turns = self._turns(view.graph)
        going = [i for i, turn in enumerate(turns) if not self.over(turn)]
        running = any(turns[i] and turns[i][-1].outcome is None for i in going)
        ready = [i for i in going if self._may_go_on(turns[i])]
        if ready and view.budget.spendable:
            return Plan(start=tuple([self._piece(view, i, turns[i]) for i in ready[: view.free]]))
        if running:
            return Plan()
        if going and not ready:
            return Plan(failure=f"{len(going)} of {self.n} turns go on in a later run")
        return self._vote(view, turns, limited=bool(ready))

    def waiting(self, graph: GraphView) -> int:
        """How many turns are unfinished."""
        return sum(not self.over(turn) for turn in self._turns(graph))

    def repeating(self, graph: GraphView) -> int:
        """How many turns were stopped because they repeated themselves."""
        return sum(bool(turn) and self._cut(turn) and self._repeats(turn) for turn in self._turns(graph))

    def over(self, turn: Turn) -> bool:
        """Whether nothing more is to be sampled of a turn."""
        if not turn or turn[-1].outcome is None:
            return False
        return not self._cut(turn) or sum(piece.sampled for piece in turn) >= self.max_tokens or self._repeats(turn)

    def _turns(self, graph: GraphView) -> list[Turn]:
        return [graph.threads(f"{NAME}/{i}") for i in range(self.n)]

    def _cut(self, turn: Turn) -> bool:
        """Whether a piece ended because it was full, and not because the turn was."""
        return turn[-1].finish is FinishReason.LENGTH and turn[-1].outcome not in BROKEN

    def _repeats(self, turn: Turn) -> bool:
        return self.repeats > 0 and in_a_loop("".join(piece.final for piece in turn), self.repeats)

    def _may_go_on(self, turn: Turn) -> bool:
        running = bool(turn) and turn[-1].outcome is None
        return not running and (not self.pieces or len(turn) < self.pieces)

    def _piece(self, view: View, number: int, turn: Turn) -> Work:
        key = f"{NAME}/{number}/{len(turn)}"
        return Work(
            key=key,
            kind="step",
            group=f"{NAME}/{number}",
            parent=turn[-1].key if turn else "",
            messages=() if turn else self._given(view),
            sampling=Sampling(
                temperature=self.temperature,
                max_tokens=min(self.piece, self.max_tokens - sum(piece.sampled for piece in turn)),
                seed=seed_of(view.seed, key),
            ),
            limits=ThreadLimits(turns=1),
        )

    def _given(self, view: View) -> tuple[Message, ...]:
        prompt = self.prompt(view.task)
        system, user = Message(role="system", content=prompt.system), Message(role="user", content=prompt.user)
        return (system, *(message for example in self.examples for message in example.shot), user)

    def _vote(self, view: View, turns: Sequence[Turn], *, limited: bool) -> Plan:
        """The most frequent canonical answer, of equal counts the first."""
        votes: dict[str, list[Turn]] = {}
        for turn in turns:
            if turn and turn[-1].canonical is not None:
                votes.setdefault(turn[-1].canonical, []).append(turn)
        if not votes:
            why = failure([piece for turn in turns for piece in turn[-1:]])
            return Plan(failure=why, limited=limited)
        chosen, of = max(votes.values(), key=len), sum(map(len, votes.values()))
        reason, wanted = f"{len(chosen)} of {of} turns agree", wants_support(view.task)
        answer = conclude([turn[-1] for turn in chosen], view.graph, of=of, wanted=wanted, reason=reason)
        return Plan(answer=replace(answer, body="".join(piece.final for piece in chosen[0])), limited=limited)


def in_a_loop(text: str, times: int) -> bool:
    """Whether the text ends in the same words `times` times over, LEAST_LOOP characters or more in all."""
    tail = text[: -LONGEST_LOOP - 1 : -1]  # reversed, so that what repeats is a period of its beginning
    return any(  # `matched`: so many characters before the last period repeat it
        matched + period >= max(times * period, LEAST_LOOP) for period, matched in enumerate(_overlaps(tail)[1:], 1)
    )


def _overlaps(text: str) -> list[int]:
    """The Z function: for each place, how many characters from there on equal the text's first ones; O(n)."""
    found = [0] * len(text)
    left = right = 0
    for i in range(1, len(text)):
        if i < right:
            found[i] = min(right - i, found[i - left])
        while i + found[i] < len(text) and text[found[i]] == text[i + found[i]]:
            found[i] += 1
        if i + found[i] > right:
            left, right = i, i + found[i]
    return found
