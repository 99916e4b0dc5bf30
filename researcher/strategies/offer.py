"""The strategies a router may choose among: built with what they need, ranked by difficulty, passed over where they
could not run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from researcher.protocols import Strategy
from researcher.strategies.best_of_n import BestOfN
from researcher.strategies.load import load_strategy, strategy_class
from researcher.strategies.steps import StepParameters
from researcher.strategies.vote import Vote
from researcher.views import View

Difficulty = Literal["easy", "medium", "hard"]

TABLE: dict[Difficulty, tuple[str, ...]] = {
    "easy": ("vote",),
    "medium": ("best_of_n", "beam", "vote"),
    "hard": ("beam", "mcts", "dvts", "rsa", "best_of_n", "refine", "vote"),
}
"""Which strategies answer a question of this difficulty, the first choice first."""


class Offer:
    """The strategies of `among`, each with its own `params` and, for what these leave open, what all have in common.

    Raises UserError for a name or a parameter that there is not.
    """

    def __init__(
        self,
        among: Sequence[str],
        params: Mapping[str, Mapping[str, Any]],
        common: Mapping[str, Any],
        temperature: float,
        *,
        scorer: str,
        step_scorer: str,
    ) -> None:
        self._common = common
        self._temperature = temperature
        self._scorer = scorer
        self._step_scorer = step_scorer
        self._built = {name: self._build(name, params.get(name, {})) for name in among}

    def given(self, cls: type[BaseModel], params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a strategy of this class: its own, and what they leave open."""
        given = {name: value for name, value in self._common.items() if name in cls.model_fields}
        if issubclass(cls, Vote | BestOfN):  # as the probes are sampled, so that they can be gone on with
            given["temperature"] = self._temperature
        scorer = self._step_scorer if issubclass(cls, StepParameters) else self._scorer
        if scorer and issubclass(cls, Vote):
            given |= {} if {"weights", "over"} & params.keys() else {"scorer": scorer, "weights": "score"}
        elif scorer and "scorer" in cls.model_fields:
            given["scorer"] = scorer
        return {**given, **params}

    def _build(self, name: str, params: Mapping[str, Any]) -> Strategy | None:
        """The strategy; None for a search over steps for which nobody names a scorer."""
        cls = strategy_class(name)
        given = self.given(cls, params)
        return None if issubclass(cls, StepParameters) and "scorer" not in given else load_strategy(name, given)

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that the strategies name."""
        return tuple([scorer for built in self._built.values() for scorer in getattr(built, "scorers", ())])

    def choose(self, difficulty: Difficulty, view: View, mute: Collection[str] = ()) -> tuple[str, Strategy | None]:
        """The name of the first strategy for this difficulty that can run here, and it; else why none can, and None.

        `mute`: verifiers that had nothing to say of any answer so far; the task's own is the empty name.
        """
        lacks: list[str] = []
        for name in dict.fromkeys((*TABLE[difficulty], *self._built)):
            if name in self._built:
                strategy = self._built[name]
                lack = _lack(strategy, view, mute)
                if lack is None:
                    return name, strategy
                lacks.append(f"{name} {lack}")
        return f"no strategy can run: {'; '.join(lacks)}", None


def _lack(strategy: Strategy | None, view: View, mute: Collection[str]) -> str | None:
    """What the strategy lacks on this model and task; None where it can run."""
    if strategy is None:
        return "needs a step_scorer"
    missing = sorted(need for need in strategy.needs if not getattr(view.capabilities, need, False))
    if missing:
        return f"needs a model with {', '.join(missing)}"
    if view.task.tools and not getattr(strategy, "calls_tools", True):
        return "samples steps, which can call no tools"
    if getattr(strategy, "needs_verdicts", False) and (view.task.verifier is None or "" in mute):
        return "needs a verifier or a scorer" if view.task.verifier is None else "needs a verifier that can judge"
    if silent := [scorer for scorer in getattr(strategy, "scorers", ()) if scorer in mute]:
        return f"needs scores, and {silent[0]} gave none"
    return None
