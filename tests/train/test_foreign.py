"""Foreign worlds: every sentence stands in its document, and no word or open noun crosses the hold-out."""

from __future__ import annotations

import random
from itertools import chain

import pytest
from researcher_tools.corpus import Corpus

from researcher.strategies.prompts import parse_answer
from researcher.train.embedded import data
from researcher.train.embedded.tasks import foreign, foreign_worlds, names
from researcher.train.embedded.tasks.documents import Style
from researcher.train.embedded.tasks.example import Skill
from researcher.train.embedded.tasks.foreign import ForeignNamer
from researcher.train.embedded.tasks.relations import BY_SUBJECT


def test_a_seed_names_the_world() -> None:
    one, two = (foreign_worlds.make(random.Random(3), 20) for _ in range(2))
    assert one == two
    assert one.texts != foreign_worlds.make(random.Random(4), 20).texts


@pytest.mark.parametrize("seed", range(5))
def test_every_fact_stands_verbatim_in_its_document(seed: int) -> None:
    world = foreign_worlds.make(random.Random(seed), 25)
    assert len(world.facts) > 50
    for fact in world.facts.values():
        assert fact.sentence in world.texts[fact.source]
        assert fact.target in fact.sentence


def test_subjects_stand_first_last_and_not_at_all() -> None:
    facts = list(chain.from_iterable(foreign_worlds.make(random.Random(i), 25).facts.values() for i in range(8)))
    first = sum(fact.sentence.startswith(fact.subject) for fact in facts)
    last = sum(fact.sentence.startswith(fact.target) for fact in facts)
    absent = sum(fact.subject not in fact.sentence for fact in facts)
    assert min(first, last, absent) > len(facts) / 10


@pytest.mark.parametrize("held_out", [False, True])
def test_drawn_words_lie_on_their_side_of_the_hold_out(held_out: bool) -> None:
    namer = ForeignNamer(random.Random(1), held_out, 0.3)
    words = {namer.word() for _ in range(300)}
    assert len(words) > 200
    assert all(names.is_held_out(word) == held_out for word in words)
    world = foreign_worlds.make(random.Random(2), 25, held_out=held_out)
    known = {relation.noun for relations in BY_SUBJECT.values() for relation in relations}
    opened = {r.noun for relations in world.relations.values() for r in relations} - known
    assert opened
    assert all(names.is_held_out(noun) == held_out for noun in opened)


def test_names_are_of_many_forms() -> None:
    namer = ForeignNamer(random.Random(5), held_out=False, similar=0.2)
    people = [namer.name("person") for _ in range(300)]
    assert len(set(people)) == 300
    assert {len(name.split()) for name in people} >= {1, 2, 3}
    assert sum("." in name for name in people) > 10
    assert sum(not name.isascii() for name in people) > 5
    assert all(namer.value().islower() for _ in range(20))


@pytest.mark.parametrize("skill", ["one_hop", "two_hops", "comparison", "unanswerable"])
def test_every_skill_works_over_foreign_documents(skill: Skill) -> None:
    for example in data.held_out(skill, 4, foreign=True):
        assert example.skill == skill
        assert parse_answer(example.messages[-1]["content"]) == example.answer
    assert data.held_out(skill, 2, foreign=True) != data.held_out(skill, 2)


def test_a_line_of_a_list_is_quoted_from_the_document_of_its_subject() -> None:
    world = foreign_worlds.make(random.Random(7), 25)
    corpus = Corpus.from_texts(world.texts)
    solved = [data.solve(random.Random(i), world, corpus, "one_hop", Style()) for i in range(60)]
    listed = {item.split("{")[0] for item in foreign.ITEMS if item.startswith(("-", "*"))}
    quotes = [e.messages[-1]["content"] for e in solved if e is not None]
    corpus.close()
    assert any(f'"{mark}' in quote for quote in quotes for mark in listed)
