"""Verifiers: checks of an answer or of a step, found by name with `get_verifier("countdown")`.

By a rule: `exact`, `numeric`, `multiple_choice`, `json_schema`, `unit_tests`, `countdown`, `game24`, `reachable`
(also of steps), `consensus`. By a model: `judge`, `orm`, `prm` (also of steps), `pooling` (also of steps).
What stands after a colon is the verifier's argument: `prm:min`, `judge:Is it polite?`, `reachable:24`.

`Task.gold` is the right answer of `exact`, `numeric` and `multiple_choice`. `Task.data` holds `numbers` and `target`
(`countdown`, `reachable`; `game24` needs the numbers alone), `aliases` (`exact`), `options` (`multiple_choice`),
`schema` (`json_schema`), `tests`, `entry_point`, `language`, `compare` and `tolerance` (`unit_tests`), `rubric`
(`judge`), `votes` (`consensus`).
"""

from __future__ import annotations

import inspect
from typing import Any, cast

from researcher.errors import UserError
from researcher.protocols import Sandbox, Verifier
from researcher_tools import discovery

GROUP = "researcher.verifiers"
BUILT_IN = {
    "consensus": "researcher_tools.verifiers.consensus:Consensus",
    "countdown": "researcher_tools.verifiers.countdown:countdown",
    "exact": "researcher_tools.verifiers.exact:Exact",
    "game24": "researcher_tools.verifiers.countdown:game24",
    "json_schema": "researcher_tools.verifiers.json_schema:JsonSchema",
    "judge": "researcher_tools.verifiers.judge:Judge",
    "multiple_choice": "researcher_tools.verifiers.multiple_choice:MultipleChoice",
    "numeric": "researcher_tools.verifiers.numeric:Numeric",
    "orm": "researcher_tools.verifiers.orm:OutcomeReward",
    "pooling": "researcher_tools.verifiers.pooling:Pooling",
    "prm": "researcher_tools.verifiers.prm:ProcessReward",
    "reachable": "researcher_tools.verifiers.reachable:Reachable",
    "unit_tests": "researcher_tools.verifiers.unit_tests:UnitTests",
}


def get_verifier(name: str, *, sandbox: Sandbox | None = None) -> Verifier:
    """A verifier by name, with its argument after a colon.

    One that takes a `sandbox` runs code in this one, which stays its owner's to close. Raises UserError with the
    nearest names, or with what is wrong with the argument.
    """
    bare, colon, argument = name.partition(":")
    factory = discovery.load(GROUP, bare, what="verifier", built_in=BUILT_IN)
    given = {} if sandbox is None or "sandbox" not in inspect.signature(factory).parameters else {"sandbox": sandbox}
    if not colon:
        return cast(Verifier, factory(**given))
    if not _takes_argument(factory):
        raise UserError(f"The verifier {bare!r} takes no argument; say {bare}, not {name[:60]!r}.")
    return cast(Verifier, factory(argument, **given))


def verifier_names() -> list[str]:
    """The names of all verifiers, sorted."""
    return discovery.names(GROUP, BUILT_IN)


def _takes_argument(factory: Any) -> bool:
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return any(parameter.kind in kinds for parameter in inspect.signature(factory).parameters.values())


__all__ = ["get_verifier", "verifier_names"]
