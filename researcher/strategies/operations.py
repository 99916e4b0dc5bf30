"""The operations of a graph of thoughts (Besta et al. 2023), as parameters, and the orders that make sense.

A thought is an answer with the reasoning that led to it. Each operation takes the thoughts of the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from researcher.errors import UserError


class Operation(BaseModel):
    """Base of the operations."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Generate(Operation):
    """New thoughts from the question."""

    op: Literal["generate"] = "generate"
    n: int = Field(default=8, ge=1, le=1000, description="thoughts")


class Score(Operation):
    """Drops what nobody could score; each thought on its way here is scored once, when it is made."""

    op: Literal["score"] = "score"


class KeepBest(Operation):
    """The thoughts with the highest scores."""

    op: Literal["keep_best"] = "keep_best"
    n: int = Field(default=1, ge=1, le=1000, description="different answers to keep")


class KeepValid(Operation):
    """The thoughts that are right by the task's verifier; without one, by the scorer."""

    op: Literal["keep_valid"] = "keep_valid"


class Aggregate(Operation):
    """New thoughts, each made of all that there are, or of some."""

    op: Literal["aggregate"] = "aggregate"
    n: int = Field(default=4, ge=1, le=1000, description="thoughts")
    of: int | None = Field(default=None, ge=1, description="thoughts that each is made of, drawn by seed; none: all")


class Improve(Operation):
    """Each thought revised once; one whose revision fails stays as it was."""

    op: Literal["improve"] = "improve"


class ValidateAndImprove(Operation):
    """Each thought revised until it is right, at most so often."""

    op: Literal["validate_and_improve"] = "validate_and_improve"
    rounds: int = Field(default=3, ge=1, le=1000, description="revisions a thought may have (the authors' code: 3)")


AnyOperation = Annotated[
    Generate | Score | KeepBest | KeepValid | Aggregate | Improve | ValidateAndImprove, Field(discriminator="op")
]

JUDGING = (Score, KeepBest, KeepValid, ValidateAndImprove)
"""Operations that rest on a verifier's word."""

MAKING = (Generate, Aggregate, Improve, ValidateAndImprove)
"""Operations that make new thoughts."""


def check_order(operations: Sequence[Operation]) -> None:
    """Raise UserError, with the operation that cannot do its work and why, for a plan that cannot be carried out."""
    unscored = ""
    for number, operation in enumerate(operations):
        name = f"The plan of strategy graph cannot be carried out: {label(operations, number)}"
        if number == 0 and not isinstance(operation, Generate):
            raise UserError(f"{name} has no thoughts to work on; a plan begins with generate.")
        if number > 0 and isinstance(operation, Generate):
            raise UserError(f"{name} would forget the thoughts before it; only the first operation generates.")
        match operation:
            case operation if isinstance(operation, MAKING):
                unscored = label(operations, number)
            case Score():
                unscored = ""
            case KeepBest() if unscored:
                raise UserError(f"{name} needs scores; put a score after {unscored}.")


def widths(operations: Sequence[Operation]) -> list[int]:
    """How many lanes of thoughts each operation has: one for each thought that was generated or aggregated last."""
    found: list[int] = []
    for operation in operations:
        found.append(operation.n if isinstance(operation, Generate | Aggregate) else found[-1])
    return found


def judged_later(operations: Sequence[Operation], number: int, *, verified: bool) -> bool:
    """Whether the score of a thought that operation `number` makes is needed, by itself or by a later one.

    `verified`: the task has a verifier, which says what is valid without any score.
    """
    if isinstance(operations[number], ValidateAndImprove) and not verified:
        return True
    for operation in operations[number + 1 :]:
        if isinstance(operation, Aggregate):
            return False
        if isinstance(operation, Score) or (not verified and isinstance(operation, KeepValid | ValidateAndImprove)):
            return True
    return False


def label(operations: Sequence[Operation], number: int) -> str:
    """How sentences call the operation of this index."""
    return f"operation {number + 1} ({getattr(operations[number], 'op', '')})"
