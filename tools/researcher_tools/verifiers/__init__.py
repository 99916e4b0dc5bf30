"""Verifiers: checks of an answer by a rule, found by name with `get_verifier("countdown")`.

`Task.gold` is the right answer of `exact` and `numeric`; `Task.data` holds `numbers` and `target` of `countdown`
(and `numbers` of `game24`), and `aliases`, further right answers, of `exact`.
"""

from __future__ import annotations

from typing import cast

from researcher.protocols import Verifier
from researcher_tools import discovery

GROUP = "researcher.verifiers"
BUILT_IN = {
    "countdown": "researcher_tools.verifiers.countdown:countdown",
    "exact": "researcher_tools.verifiers.exact:Exact",
    "game24": "researcher_tools.verifiers.countdown:game24",
    "numeric": "researcher_tools.verifiers.numeric:Numeric",
}


def get_verifier(name: str) -> Verifier:
    """A verifier by name: what its entry point gives when called. Raises UserError with the nearest names."""
    return cast(Verifier, discovery.load(GROUP, name, built_in=BUILT_IN)())


def verifier_names() -> list[str]:
    """The names of all verifiers, sorted."""
    return discovery.names(GROUP, BUILT_IN)


__all__ = ["get_verifier", "verifier_names"]
