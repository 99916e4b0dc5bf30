"""A drill for training alone: many small questions about passages that are already there.

One row asks ten times where an ordinary one asks once, so matching names and copying sentences is learned on a
fraction of the tokens. The questions are not the model's own: they weigh little in the loss (`QUESTION` finds them).
"""

from __future__ import annotations

import random
import re

from researcher_tools.corpus import Corpus, Passage, render

from researcher.train.embedded.tasks.example import Example, say, user
from researcher.train.embedded.tasks.relations import BY_SUBJECT
from researcher.train.embedded.tasks.worlds import Fact, World

QUESTION = re.compile(r"^Q: .*\n", re.MULTILINE)
ABSENT = "Not there."


def make(rng: random.Random, world: World, corpus: Corpus) -> Example | None:
    """Passages that resemble each other, and up to ten questions about them."""
    passages = _passages(rng, world, corpus)
    places = [(fact, passage) for passage in passages for fact in world.facts.values() if fact.sentence in passage.text]
    if not places:
        return None
    rng.shuffle(places)
    lines: list[str] = []
    for fact, passage in places[:10]:
        lines += [f"Q: {_question(rng, fact)}", f"{fact.sentence} [{passage.n}]", f"So {fact.target}."]
        if rng.random() < 0.2:
            lines += _absent(rng, world, fact.subject)
    messages = [user(render(passages)), say(f"<answer>{places[0][0].target}</answer>", "\n".join(lines))]
    return Example("lookup", messages, (), places[0][0].target, world.texts)


def _passages(rng: random.Random, world: World, corpus: Corpus) -> list[Passage]:
    found: dict[int, Passage] = {}
    wanted = rng.randrange(2, 13)
    for _ in range(8):
        name = rng.choice(list(world.kinds))
        relation = rng.choice(BY_SUBJECT[world.kinds[name]])
        for hit in corpus.search(f"{name} {relation.queries[0]}", 4):
            found.setdefault(hit.n, hit)
        if len(found) >= wanted:
            break
    passages = list(found.values())
    rng.shuffle(passages)
    return passages


def _question(rng: random.Random, fact: Fact) -> str:
    if rng.random() < 0.5:
        return f"Find the {fact.relation.noun} of {fact.subject}."
    return rng.choice(fact.relation.questions).format(x=fact.subject)


def _absent(rng: random.Random, world: World, subject: str) -> list[str]:
    missing = [r for r in BY_SUBJECT[world.kinds[subject]] if (subject, r.key) not in world.facts and r.key != "spouse"]
    if not missing:
        return []
    relation = rng.choice(missing)
    return [f"Q: Find the {relation.noun} of {subject}.", ABSENT]
