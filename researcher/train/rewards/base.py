"""What a reward is, and the weighted sum of several: `weigh(group, [RewardConfig(name="accuracy"), ...])`.

A reward looks at a group of siblings and gives each a number, or None where it has no word on it (its check could not
run). A sample on which any term is silent has no reward and is not trained on: unverified is never wrong.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol, SupportsFloat

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from researcher.errors import UserError
from researcher.train.sample import Sample, Term
from researcher.types import Outcome, VerdictStatus

GROUP = "researcher.rewards"


class Reward(Protocol):
    """A rule that gives the siblings on one task their rewards."""

    def __call__(self, group: Sequence[Sample]) -> Sequence[float | None]:
        """One finite number for each sample, or None where there is nothing to say."""
        ...


class RewardParameters(BaseModel):
    """Base of the rewards: their fields are their parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RewardConfig(BaseModel):
    """A term of a reward as a recipe names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weight: float = Field(default=1.0, allow_inf_nan=False)
    params: dict[str, Any] = Field(default_factory=dict)


def reward_names() -> list[str]:
    """The names of the installed rewards, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


@cache
def _loaded(name: str) -> Any:
    for point in entry_points(group=GROUP, name=name):
        return point.load()
    close = difflib.get_close_matches(name, reward_names(), 3, 0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(reward_names())}."
    raise UserError(f"There is no reward {name!r}; {hint}")


def load_reward(name: str, params: Mapping[str, Any] | None = None) -> Reward:
    """The reward with these parameters. Raises UserError that names what is wrong."""
    make = _loaded(name)
    try:
        reward: Reward = make(**dict(params or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"Reward {name}, parameter {field!r}: {first['msg']} (got {first['input']!r}).") from None
    except TypeError as error:
        raise UserError(f"Reward {name}: {error}.") from None
    return reward


class Judged(Protocol):
    """What decides whether a thread was right."""

    @property
    def verdict(self) -> VerdictStatus | None: ...
    @property
    def outcome(self) -> Outcome | None: ...
    @property
    def boundary(self) -> str: ...
    @property
    def answer(self) -> str | None: ...


def judged(sample: Judged) -> bool | None:
    """Whether the sample is right: as the task's verifier says; wrong where it ended without an answer of its own
    accord (out of tokens or turns, in a loop, by refusing); None where nobody can tell (the check could not run, the
    thread failed, was cancelled, or the run's budget ended it)."""
    if sample.verdict is VerdictStatus.CORRECT:
        return True
    if sample.verdict is VerdictStatus.WRONG:
        return False
    own = sample.outcome in (Outcome.EXHAUSTED, Outcome.REFUSED) and not sample.boundary
    return False if own and sample.answer is None else None


def weigh(group: Sequence[Sample], terms: Sequence[RewardConfig]) -> list[Sample | None]:
    """The samples with these terms, in place of any they had; None for one on which a term is silent.

    Raises UserError where a reward raises, or gives what is not a finite number: training on it would spoil the model.
    """
    columns = [_column(group, term) for term in terms]
    weighed: list[Sample | None] = []
    for row, sample in enumerate(group):
        values = [column[row] for column in columns]
        if any(value is None for value in values):
            weighed.append(None)
            continue
        found = tuple(
            [Term(t.name, value, t.weight) for t, value in zip(terms, values, strict=True) if value is not None]
        )
        weighed.append(msgspec.structs.replace(sample, terms=found))
    return weighed


def _column(group: Sequence[Sample], term: RewardConfig) -> list[float | None]:
    reward = load_reward(term.name, term.params)
    try:
        values = list(reward(group))
    except Exception as error:  # a plug-in's fault, which must name itself
        raise UserError(f"The reward {term.name} raised {type(error).__name__}: {error}.") from error
    if len(values) != len(group):
        raise UserError(f"The reward {term.name} gave {len(values)} values for {len(group)} samples.")
    for sample, value in zip(group, values, strict=True):
        if value is not None and not (isinstance(value, SupportsFloat) and math.isfinite(value)):
            raise UserError(f"The reward {term.name} gave {value!r} for thread {sample.thread} of run {sample.run}.")
    return [None if value is None else float(value) for value in values]
