"""Worlds with foreign names, open relations and documents of several styles: `make(rng, documents=20)`."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

from researcher.train.embedded.tasks import foreign
from researcher.train.embedded.tasks.kinds import NUMBERS, WORDS, Kind, Relation
from researcher.train.embedded.tasks.names import is_held_out
from researcher.train.embedded.tasks.phrases import VARIED, opened
from researcher.train.embedded.tasks.worlds import WEIGHTS, Fact, World, slug

_SHARED = ("letters.md", "notes.txt", "archive.md", "gazette.md", "diary.txt", "minutes.md", "report-2.md", "facts.md")
_LISTS = tuple(f"list {i}" for i in range(len(foreign.ITEMS)))
_UNITS = ("", "", " kg", " m", " euros", " cm", " hours")


class _Place(NamedTuple):
    """Where a thing is written about, and how."""

    source: str
    style: str


def make(
    rng: random.Random, documents: int, *, held_out: bool = False, similar: float = 0.3, density: float = 0.75
) -> World:
    """A world of about this many things; its words and open nouns lie on one side of the hold-out."""
    namer = foreign.ForeignNamer(rng, held_out, similar)
    things = _things(rng, documents, namer)
    kinds = {name: kind for kind, names in things.items() for name in names}
    relations = _relations(rng, list(things), held_out)
    places = {name: _place(rng, name) for name in kinds}
    facts = _facts(rng, namer, things, relations, places, density)
    spare = {kind: namer.name(kind) for kind in things}
    return World(things, facts, _write(rng, facts, places), kinds, spare, relations)


def _things(rng: random.Random, documents: int, namer: foreign.ForeignNamer) -> dict[Kind, list[str]]:
    every = list(WEIGHTS)
    chosen = every if documents >= 16 else rng.sample(every, max(2, min(8, documents // 2)))
    things: dict[Kind, list[str]] = {kind: [] for kind in chosen}
    for i in range(documents):
        kind = chosen[i % len(chosen)]
        if i >= 2 * len(chosen):
            kind = rng.choices(chosen, [WEIGHTS[k] for k in chosen])[0]
        things[kind].append(namer.name(kind))
    return things


def _relations(rng: random.Random, kinds: list[Kind], held_out: bool) -> dict[Kind, list[Relation]]:
    """The known relations, and for each kind a few that are only named."""
    nouns = [
        (noun, target) for target, listed in foreign.NOUNS.items() for noun in listed if is_held_out(noun) == held_out
    ]
    relations: dict[Kind, list[Relation]] = {}
    for kind in kinds:
        drawn = rng.sample(nouns, min(len(nouns), rng.randrange(1, 5)))
        relations[kind] = [*VARIED[kind], *(opened(noun, kind, target) for noun, target in drawn)]
    return relations


def _place(rng: random.Random, name: str) -> _Place:
    if rng.random() < 0.2:
        return _Place(rng.choice(_SHARED), "prose")
    form = rng.random()
    if form < 0.1:
        return _Place(f"doc-{rng.randrange(1, 200)}.md", rng.choice(("prose", "letter")))
    return _Place(
        slug(name) if form < 0.9 else slug(name)[:-3] + ".txt",
        rng.choice(("prose", "prose", rng.choice(_LISTS), "letter")),
    )


def _facts(
    rng: random.Random,
    namer: foreign.ForeignNamer,
    things: dict[Kind, list[str]],
    relations: dict[Kind, list[Relation]],
    places: dict[str, _Place],
    density: float,
) -> dict[tuple[str, str], Fact]:
    facts: dict[tuple[str, str], Fact] = {}
    married: set[str] = set()
    for kind, names in things.items():
        for subject in names:
            for relation in relations[kind]:
                drawn = _target(rng, namer, relation, subject, things) if rng.random() < density else None
                if drawn is None:
                    continue
                if relation.key == "spouse":
                    if married & {subject, drawn[0]}:
                        continue
                    married |= {subject, drawn[0]}
                place = places[subject] if rng.random() > 0.1 else _Place(rng.choice(_SHARED), "prose")
                sentence = _sentence(rng, relation, subject, drawn[0], place)
                facts[subject, relation.key] = Fact(subject, relation, *drawn, sentence, place.source)
    _merge(rng, facts)
    return facts


def _merge(rng: random.Random, facts: dict[tuple[str, str], Fact]) -> None:
    """Make one sentence of two neighbouring facts here and there: `X is 87 m tall and stands in Y.`"""
    keys = list(facts)
    for one, two in pairwise(keys):
        a, b = facts[one], facts[two]
        head = f"{a.subject} "
        alike = a.source == b.source and a.subject == b.subject and a.sentence.endswith(".")
        if alike and a.sentence.startswith(head) and b.sentence.startswith(head) and rng.random() < 0.3:
            both = f"{a.sentence[:-1]} and {b.sentence.removeprefix(head)}"
            facts[one], facts[two] = a._replace(sentence=both), b._replace(sentence=both)


def _target(
    rng: random.Random, namer: foreign.ForeignNamer, relation: Relation, subject: str, things: dict[Kind, list[str]]
) -> tuple[str, int | None] | None:
    match relation.target:
        case "word":
            return namer.value(), None
        case "number":
            unit = "" if relation.noun.startswith("number") else rng.choice(_UNITS)
            return f"{rng.randrange(2, 10 ** rng.randrange(1, 6) + 2)}{unit}", None
    if relation.target in NUMBERS:
        low, high, unit = NUMBERS[relation.target]
        number = rng.randrange(low, high)
        return f"{number}{unit}", number
    if relation.target in WORDS:
        return rng.choice(WORDS[relation.target]), None
    others = [name for kind, names in things.items() if kind == relation.target for name in names if name != subject]
    if others and rng.random() < 0.8:
        return rng.choice(others), None
    return next((namer.name(kind) for kind in WEIGHTS if kind == relation.target), None) or "", None


def _sentence(rng: random.Random, relation: Relation, x: str, y: str, place: _Place) -> str:
    style = place.style
    if style.startswith("list"):
        noun = relation.noun if rng.random() < 0.3 else relation.noun.capitalize()
        return foreign.ITEMS[int(style[-1])].format(noun=noun, y=y)
    if place.source.rpartition(".")[0] == slug(x).rpartition(".")[0] and rng.random() < 0.2:
        p = rng.choice(("His", "Her")) if relation.subject == "person" else "Its"
        return rng.choice(foreign.PRONOUNS).format(p=p, q=p.lower(), noun=relation.noun, y=y)
    written = f'"{x}"' if relation.subject == "book" and rng.random() < 0.25 else x
    text = rng.choice(relation.facts).format(x=written, y=y)
    if text.endswith(".") and rng.random() < 0.1:
        text = text[:-1] + rng.choice(foreign.TAILS).format(n=rng.randrange(2, 2030)) + "."
    if style == "letter" and rng.random() < 0.4:
        text = rng.choice(foreign.LEADS) + (
            text[0].lower() + text[1:] if text.startswith(("The ", "In ", "It ")) else text
        )
    return text


def _write(rng: random.Random, facts: dict[tuple[str, str], Fact], places: dict[str, _Place]) -> dict[str, str]:
    sentences: dict[str, list[str]] = {place.source: [] for place in places.values()}
    styles = {place.source: (name, place.style) for name, place in places.items()}
    names = list(places)
    for fact in facts.values():
        if fact.sentence not in sentences.setdefault(fact.source, []):
            sentences[fact.source].append(fact.sentence)
    texts: dict[str, str] = {}
    sources = [source for source, lines in sentences.items() if lines]
    rng.shuffle(sources)
    for source in sources:
        name, style = styles.get(source, ("", "prose"))
        texts[source] = _text(rng, sentences[source], name or rng.choice(names), style, names)
    return texts


def _text(rng: random.Random, lines: list[str], x: str, style: str, names: list[str]) -> str:
    rng.shuffle(lines)
    if style.startswith("list"):
        head = rng.choice(("{x}", "# {x}", "{x}:", "Name: {x}", "{x} - facts")).format(x=x)
        return "\n".join([head, *lines]) + "\n"
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3)) + len(lines) // 12):
        extra = rng.choice(foreign.CHATTER if rng.random() < 0.5 else foreign.ABOUT)
        lines.insert(rng.randrange(len(lines) + 1), extra.format(x=x, z=rng.choice(names)))
    text = lines[0]
    apart = rng.choice((0.1, 0.3, 0.7))
    for line in lines[1:]:
        text += ("\n\n" if rng.random() < apart else rng.choice((" ", " ", "\n"))) + line
    if style == "letter" or rng.random() < 0.2:
        opening = rng.choice(foreign.OPENINGS).format(x=x, z=rng.choice(names))
        text = f"{opening}{rng.choice((chr(10), chr(10) * 2))}{text}"
    return text + "\n"
