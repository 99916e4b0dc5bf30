"""Budget forcing (s1, Muennighoff et al. 2025): the thinking of one turn is made longer, or cut, to a budget of tokens.

The turn is sampled in pieces. A piece ends at the marker that ends the thinking (which it does not keep); where that
came too early, "Wait" is put in its place and the thinking goes on. At the cap, or after the last "Wait", the marker is
put there for the model, which then says its answer.

Each piece may have what the pieces before it left of the cap. (s1's evaluation harness gives the whole cap to each
piece and cuts afterwards, so that n "Wait"s cost up to n + 1 caps.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from researcher.strategies.base import InPieces, conclude, failure, seed_of, wants_support
from researcher.strategies.prompts import answer_prompt
from researcher.types import FinishReason, Message, Outcome, Sampling, ThreadLimits, Work
from researcher.views import Plan, ThreadInfo, View

NAME = "force"
BROKEN = (Outcome.FAILED, Outcome.REFUSED, Outcome.CANCELLED)
Pieces = Sequence[ThreadInfo]


class BudgetForcing(InPieces):
    """Forces one turn to think for longer, then takes its answer.

    A model that does not think between marks has its whole turn forced, and is then asked for its final answer.
    """

    name: Literal["budget_forcing"] = "budget_forcing"
    thinking: int = Field(default=2048, ge=1, description="tokens the thinking may have over all pieces (s1: 32000)")
    waits: int = Field(default=1, ge=0, le=1000, description="ends of the thinking that are dropped (s1's code: 1)")
    least: int | None = Field(
        default=None, ge=0, description="tokens before which an end is too early; without it any end is, as in s1"
    )
    word: str = Field(default="Wait", min_length=1, description="what is put in the place of a dropped end (s1: Wait)")
    opening: str = Field(default="<think>", min_length=1, description="how a model begins to think, where it says so")
    marker: str = Field(default="</think>", min_length=1, description="how it ends its thinking (Qwen3, R1)")
    final: str = Field(
        default="<answer>",
        description="said after thinking that was cut, lest it goes on (s1's harness: Final Answer:)",
    )
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, description="sampling temperature (s1: 0)")

    @property
    def cancels(self) -> bool:
        """Whether it stops threads early."""
        return False

    def plan(self, view: View) -> Plan:
        """Sample the next piece when the last has ended, up to the answer."""
        if tools := ", ".join(view.task.tools):
            why = f"budget forcing samples a turn in pieces, which can call no tools, and this task has {tools}"
            return Plan(failure=why)
        pieces = view.graph.threads(NAME)
        if pieces and pieces[-1].outcome is None:
            return Plan()
        if not pieces and not view.budget.spendable:
            return Plan(failure=failure(pieces), limited=True)
        if not pieces or not _over(pieces):
            return Plan(start=(self._next(view, pieces),)[: view.free])
        limited = not view.budget.spendable and self._cut_short(pieces)
        if pieces[-1].answer is None:
            return Plan(failure=failure(pieces[::-1]), limited=limited)
        wanted, reason = wants_support(view.task), f"a turn of {_used(pieces)} tokens in {len(pieces)} pieces"
        answer = conclude(pieces[-1:], view.graph, of=1, wanted=wanted, reason=reason)
        return Plan(answer=answer, limited=limited)

    def _next(self, view: View, pieces: Pieces) -> Work:
        """The thinking from its beginning (a model may write the opening mark itself), more of it, or the answer."""
        if not pieces:
            prompt = answer_prompt(view.task.question)
            given = (Message(role="system", content=prompt.system), Message(role="user", content=prompt.user))
            return self._piece(view, (), given, tokens=self.thinking)
        if self._early(pieces) and view.budget.spendable:
            said = Message(role="assistant", content=self.word)
            return self._piece(view, pieces, (said,), tokens=self.thinking - _used(pieces))
        return self._piece(view, pieces, (Message(role="assistant", content=self._closing(pieces)),))

    def _piece(self, view: View, before: Pieces, said: tuple[Message, ...], *, tokens: int | None = None) -> Work:
        """A piece of thinking of so many tokens, or, without a number, the answer, which may spend the reserve."""
        key, answer = f"{NAME}/{len(before)}", tokens is None
        return Work(
            key=key,
            kind="step",
            group=NAME,
            parent=before[-1].key if before else "",
            messages=said,
            reserved=answer,
            verify=answer,
            sampling=Sampling(
                temperature=self.temperature,
                max_tokens=self.max_tokens if tokens is None else tokens,
                seed=seed_of(view.seed, key),
                stop=() if answer else (self.marker,),
            ),
            limits=ThreadLimits(turns=1),
        )

    def _early(self, pieces: Pieces) -> bool:
        """Whether the thinking ended of itself, too early, and may go on."""
        last, used = pieces[-1], _used(pieces)
        ended = last.outcome is Outcome.ANSWERED and last.finish is FinishReason.STOP
        short = self.least is None or used < self.least
        return ended and short and used < self.thinking and len(pieces) <= self.waits

    def _closing(self, pieces: Pieces) -> str:
        """What ends the thinking and asks for the answer."""
        last = pieces[-1]
        if self.opening not in pieces[0].final and any(piece.answer is not None for piece in pieces):
            return f"\n\n{self.final}"  # it has answered, and never opened its thinking
        line = "" if (last.final or last.work.messages[-1].content).endswith("\n") else "\n"
        return f"{line}{self.marker}\n\n{'' if last.finish is FinishReason.STOP else self.final}"

    def _cut_short(self, pieces: Pieces) -> bool:
        """Whether the turn would have gone on, had the budget allowed it."""
        thoughts = [piece for piece in pieces if not piece.work.verify]
        refused = any(piece.outcome is Outcome.EXHAUSTED and piece.finish is None for piece in pieces)
        return refused or self._early(thoughts)


def _used(pieces: Pieces) -> int:
    """The tokens sampled in these pieces."""
    return sum(piece.sampled for piece in pieces)


def _over(pieces: Pieces) -> bool:
    """Whether the turn, whose pieces have ended, has its answer or can have none."""
    last = pieces[-1]
    if last.work.verify or last.outcome in BROKEN:
        return True
    return len(pieces) == 1 and last.finish is None  # the model never came to say anything
