"""Suites without end, generated from held-out names and numbers that the embedded model's training never draws."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import count as naturals

from researcher.errors import UserError
from researcher.evals.problem import Problem
from researcher.protocols import Verifier
from researcher.train.embedded import data
from researcher.train.embedded.tasks import countdown
from researcher.train.embedded.tasks.example import Example, Skill

NAMESPACE = "evals"
"""Begins every seed, so that no problem here is one that the recipes were tuned on."""

DOCUMENTS: tuple[Skill, ...] = ("one_hop", "two_hops", "comparison", "three_hops", "unanswerable")


class Countdown:
    """Countdown problems with three and four numbers in turn, or with one number of them; a rule judges them."""

    size = None
    verifiers: Mapping[str, Verifier] = {}

    def __init__(self, sizes: str = "") -> None:
        if sizes not in ("", "3", "4"):
            raise UserError(f"There is no suite countdown:{sizes}; there are: countdown, countdown:3, countdown:4.")
        self.name = f"countdown:{sizes}" if sizes else "countdown"
        self.sizes = (int(sizes),) if sizes else (3, 4)

    def problems(self, count: int) -> list[Problem]:
        """Held-out problems that have a solution, no two alike."""
        found: dict[tuple[int, ...], Problem] = {}
        for i in naturals():
            if len(found) >= count:
                break
            size = self.sizes[i % len(self.sizes)]
            rng = random.Random(f"{NAMESPACE}/countdown_{size}/{i}")
            numbers, target = countdown.problem(rng, size, held_out=True)
            shown = ", ".join(map(str, numbers))
            question = rng.choice(countdown.PHRASINGS).format(numbers=shown, target=target)
            given = {"numbers": numbers, "target": target}
            problem = Problem(f"{size}/{i}", question, "countdown", data=given, rule=True)
            found.setdefault((*sorted(numbers), target), problem)
        return list(found.values())


class Documents:
    """Questions over generated worlds, each in its own folder of documents; of all kinds in turn, or of those that are
    named, with + between them."""

    size = None
    verifiers: Mapping[str, Verifier] = {}

    def __init__(self, kind: str = "") -> None:
        known: dict[str, Skill] = {name: name for name in DOCUMENTS}
        if unknown := [name for name in kind.split("+") if kind and name not in known]:
            names = ", ".join(f"documents:{name}" for name in DOCUMENTS)
            raise UserError(f"There is no suite documents:{unknown[0]}; there are: documents, {names}.")
        self.name = f"documents:{kind}" if kind else "documents"
        self.kinds: tuple[Skill, ...] = tuple([known[name] for name in kind.split("+")]) if kind else DOCUMENTS

    def problems(self, count: int) -> list[Problem]:
        """Questions that the search tool can find the answer to, or that no document answers."""
        return [self._problem(i) for i in range(count)]

    def _problem(self, i: int) -> Problem:
        kind = self.kinds[i % len(self.kinds)]
        made = data.make(random.Random(f"{NAMESPACE}/documents/{kind}/{i}"), kind, held_out=True)
        return document_problem(f"{kind}/{i}", made)


def document_problem(name: str, made: Example) -> Problem:
    """The example's question over its documents."""
    return Problem(name, made.messages[1]["content"], "exact", gold=made.answer, texts=made.texts)
