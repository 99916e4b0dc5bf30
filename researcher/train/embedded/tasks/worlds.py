"""A small invented world: `World.make(rng, documents=20)` gives facts and the documents that state them."""

from __future__ import annotations

import random
from typing import NamedTuple, Self

from researcher.train.embedded.tasks.kinds import FILLERS, KIND_NAMES, NUMBERS, WORDS, Kind, Relation
from researcher.train.embedded.tasks.names import Namer
from researcher.train.embedded.tasks.relations import BY_SUBJECT

WEIGHTS: dict[Kind, float] = {
    "person": 3, "town": 2, "country": 1, "river": 1, "mountain": 1, "company": 1.4, "tower": 1, "book": 1,
}  # fmt: skip


class Fact(NamedTuple):
    """One stated relation: `sentence` stands verbatim in the document `source`."""

    subject: str
    relation: Relation
    target: str
    number: int | None
    sentence: str
    source: str


class World(NamedTuple):
    """Things by kind, facts by (subject, relation key), texts by file name."""

    things: dict[Kind, list[str]]
    facts: dict[tuple[str, str], Fact]
    texts: dict[str, str]
    kinds: dict[str, Kind]
    spare: dict[Kind, str]
    """One name of each kind that no document mentions."""
    relations: dict[Kind, list[Relation]] = BY_SUBJECT
    """What may be said of a kind."""

    @classmethod
    def make(
        cls, rng: random.Random, documents: int, *, held_out: bool = False, similar: float = 0.3, density: float = 0.75
    ) -> Self:
        """A fresh world of this many documents, whose names all lie on one side of the hold-out."""
        namer = Namer(rng, held_out, similar)
        things = _things(rng, documents, namer)
        kinds = {name: kind for kind, names in things.items() for name in names}
        facts = _facts(rng, things, kinds, density)
        spare = {kind: _name(rng, kind, namer, []) for kind in things}
        return cls(things, facts, _write(rng, facts, kinds), kinds, spare)

    def of(self, subject: str) -> list[Fact]:
        """The facts about one thing."""
        if subject not in self.kinds:
            return []
        keys = (relation.key for relation in self.relations[self.kinds[subject]])
        return [self.facts[subject, key] for key in keys if (subject, key) in self.facts]


def slug(name: str) -> str:
    """The file name of the document about this thing."""
    return name.lower().replace(" ", "-") + ".md"


def _things(rng: random.Random, documents: int, namer: Namer) -> dict[Kind, list[str]]:
    kinds: list[Kind] = list(WEIGHTS)
    chosen = kinds if documents >= 16 else rng.sample(kinds, max(2, min(8, documents // 2)))
    things: dict[Kind, list[str]] = {kind: [] for kind in chosen}
    for i in range(documents):
        kind = chosen[i % len(chosen)] if i < 2 * len(chosen) else _weighted(rng, chosen)
        people = [word for name in things.get("person", []) for word in name.split()]
        name = _name(rng, kind, namer, people)
        if name not in things[kind]:
            things[kind].append(name)
    return things


def _weighted(rng: random.Random, kinds: list[Kind]) -> Kind:
    return rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]


def _name(rng: random.Random, kind: Kind, namer: Namer, people: list[str]) -> str:
    pattern = rng.choice(KIND_NAMES[kind])
    if kind != "person":
        return pattern.format(rng.choice(people) if people and rng.random() < 0.05 else namer.word())
    first, last = namer.word(), namer.word()
    if len(people) >= 2 and rng.random() < 0.4:  # a namesake: the same first or last name as somebody else
        i = rng.randrange(len(people) // 2) * 2
        first, last = (people[i], last) if rng.random() < 0.5 else (first, people[i + 1])
    return pattern.format(first, last)


def _facts(
    rng: random.Random, things: dict[Kind, list[str]], kinds: dict[str, Kind], density: float
) -> dict[tuple[str, str], Fact]:
    facts: dict[tuple[str, str], Fact] = {}
    married: set[str] = set()
    for subject, kind in kinds.items():
        for relation in BY_SUBJECT[kind]:
            if rng.random() > density:
                continue
            drawn = _target(rng, relation, subject, things)
            if drawn is None:
                continue
            target, number = drawn
            if relation.key == "spouse":
                if married & {subject, target}:
                    continue
                married |= {subject, target}
            sentence = rng.choice(relation.facts).format(x=subject, y=target)
            source = slug(subject) if rng.random() > 0.1 else f"notes-{rng.randrange(1, 4)}.md"
            facts[subject, relation.key] = Fact(subject, relation, target, number, sentence, source)
    return facts


def _target(
    rng: random.Random, relation: Relation, subject: str, things: dict[Kind, list[str]]
) -> tuple[str, int | None] | None:
    if relation.target in NUMBERS:
        low, high, unit = NUMBERS[relation.target]
        number = rng.randrange(low, high)
        return f"{number}{unit}", number
    if relation.target in WORDS:
        return rng.choice(WORDS[relation.target]), None
    others = [name for kind, names in things.items() if kind == relation.target for name in names if name != subject]
    return (rng.choice(others), None) if others else None


def _write(rng: random.Random, facts: dict[tuple[str, str], Fact], kinds: dict[str, Kind]) -> dict[str, str]:
    sentences: dict[str, list[str]] = {slug(name): [] for name in kinds}
    for name, kind in kinds.items():
        if rng.random() < 0.2:
            sentences[slug(name)].append(rng.choice(FILLERS[kind]).format(x=name))
    for fact in facts.values():
        sentences.setdefault(fact.source, []).append(fact.sentence)
    sources = [source for source, lines in sentences.items() if lines]
    rng.shuffle(sources)
    return {source: _paragraphs(rng, sentences[source]) for source in sources}


def _paragraphs(rng: random.Random, sentences: list[str]) -> str:
    rng.shuffle(sentences)
    parts = [sentences[0]]
    for sentence in sentences[1:]:
        parts.append((" " if rng.random() < 0.3 else "\n\n") + sentence)
    return "".join(parts) + "\n"
