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
from researcher.train.embedded.tasks.example import Skill

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
    worlds = "documents"
    """What the suite is called, and what its seeds begin with."""
    foreign = False

    def __init__(self, kind: str = "") -> None:
        known: dict[str, Skill] = {name: name for name in DOCUMENTS}
        if unknown := [name for name in kind.split("+") if kind and name not in known]:
            names = ", ".join(f"{self.worlds}:{name}" for name in DOCUMENTS)
            raise UserError(f"There is no suite {self.worlds}:{unknown[0]}; there are: {self.worlds}, {names}.")
        self.name = f"{self.worlds}:{kind}" if kind else self.worlds
        self.kinds: tuple[Skill, ...] = tuple([known[name] for name in kind.split("+")]) if kind else DOCUMENTS

    def problems(self, count: int) -> list[Problem]:
        """Questions that the search tool can find the answer to, or that no document answers."""
        return [self.draw(NAMESPACE, i, held_out=True) for i in range(count)]

    def draw(self, namespace: str, i: int, *, held_out: bool) -> Problem:
        """The i-th question of a namespace of seeds, over documents with names that evaluations draw (`held_out`) or
        trainings."""
        kind = self.kinds[i % len(self.kinds)]
        rng = random.Random(f"{namespace}/{self.worlds}/{kind}/{i}")
        made = data.make(rng, kind, held_out=held_out, foreign=self.foreign)
        return Problem(f"{kind}/{i}", made.messages[1]["content"], "exact", gold=made.answer, texts=made.texts)


class Foreign(Documents):
    """The same questions over documents of another build: real-looking names, many phrasings, lists, letters."""

    worlds = "foreign"
    foreign = True
