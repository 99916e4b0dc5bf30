"""The strategies of an evaluation with their parameters: `vote,quick=vote` with `quick.stop=beta` are two variants."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from researcher.errors import UserError
from researcher.protocols import Strategy
from researcher.strategies.load import load_strategy

_LABEL = re.compile(r"[\w.\-]*\w")


class Variant(NamedTuple):
    """A strategy under the name that tables give it."""

    label: str
    strategy: str
    params: Mapping[str, Any]

    def planner(self) -> Strategy:
        """The strategy itself."""
        return load_strategy(self.strategy, self.params)

    def described(self) -> dict[str, Any]:
        """The strategy and all its parameters, defaults too, so that a changed default is a changed configuration."""
        planner: Any = self.planner()
        return {"strategy": self.strategy, "params": planner.model_dump(mode="json")}


def variants_of(names: Iterable[str], params: Mapping[str, Any]) -> list[Variant]:
    """The variants that `names` list (`strategy` or `label=strategy`) with the `params` given as `label.key`.

    Raises UserError for an unknown strategy, label or parameter, with the nearest names.
    """
    strategies: dict[str, str] = {}
    for name in names:
        label, equals, strategy = (part.strip() for part in name.partition("="))
        strategy = strategy if equals else label
        if not _LABEL.fullmatch(label):
            raise UserError(f"--strategy {name}: write a strategy's name, or label=strategy.")
        if label in strategies:
            raise UserError(f"--strategy {name}: {label} is there twice; give one of them a name: {label}2={strategy}.")
        strategies[label] = strategy
    if not strategies:
        raise UserError("--strategy is empty: name at least one, like --strategy chain_of_thought,vote.")
    own = _by_label(params, strategies)
    variants = [Variant(label, strategy, own[label]) for label, strategy in strategies.items()]
    for variant in variants:
        variant.planner()
    return variants


def _by_label(params: Mapping[str, Any], labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    own: dict[str, dict[str, Any]] = {label: {} for label in labels}
    for name, value in params.items():
        label, dot, key = name.rpartition(".")
        if not dot or label not in own:
            close = difflib.get_close_matches(label or name, list(own), n=3, cutoff=0.5)
            hint = f"did you mean {close[0]}.{key}?" if close and dot else f"write {next(iter(own))}.key=value."
            raise UserError(f"--param {name}: {label or name!r} is no strategy of this evaluation; {hint}")
        own[label][key] = value
    return own
