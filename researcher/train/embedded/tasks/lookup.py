"""A drill for training alone: many small questions about passages that are already there.

One row asks ten times where an ordinary one asks once, so matching names and copying sentences is learned on a
fraction of the tokens. The questions are not the model's own: they weigh little in the loss (`QUESTION` finds them).
"""

from __future__ import annotations

import random
import re

from researcher_tools.corpus import Corpus, Passage, render

from researcher.train.embedded.tasks.example import Example, say, user
from researcher.train.embedded.tasks.worlds import Fact, World

QUESTION = re.compile(r"^Q: .*\n", re.MULTILINE)
ABSENT = "Not there."


def make(rng: random.Random, world: World, corpus: Corpus) -> Example | None:
    """Passages that resemble each other, and up to ten questions about them."""
    passages = _passages(rng, world, corpus)
    places = [(fact, passage) for passage in passages for fact in world.facts.values() if _states(passage, fact)]
    if not places:
        return None
    rng.shuffle(places)
    lines: list[str] = []
    for fact, passage in places[:10]:
        lines += [f"Q: {_question(rng, fact)}", f"{fact.sentence} [{passage.n}]", f"So {fact.target}."]
        if rng.random() < 0.3:
            lines += _absent(rng, world, fact.subject)
    lines += _contests(rng, [fact for fact, _ in places])
    messages = [user(render(passages)), say(f"<answer>{places[0][0].target}</answer>", "\n".join(lines))]
    return Example("lookup", messages, (), places[0][0].target, world.texts)


def _states(passage: Passage, fact: Fact) -> bool:
    return fact.source == passage.source and fact.sentence in passage.text


def _contests(rng: random.Random, facts: list[Fact]) -> list[str]:
    """Up to three comparisons of what the passages state."""
    lines: list[str] = []
    for fact in facts:
        others = [f for f in facts if f.relation.key == fact.relation.key and f.number not in (None, fact.number)]
        if fact.relation.contests and others and len(lines) < 6:
            contest, other = rng.choice(fact.relation.contests), rng.choice(others)
            if fact.number is not None and other.number is not None:
                question = contest.question.format(a=fact.subject, b=other.subject)
                lines += [f"Q: {question}", contest.decide((fact.number, fact.subject), (other.number, other.subject))]
    return lines


def _passages(rng: random.Random, world: World, corpus: Corpus) -> list[Passage]:
    found: dict[int, Passage] = {}
    wanted = rng.randrange(2, 13)
    for _ in range(8):
        name = rng.choice(list(world.kinds))
        relation = rng.choice(world.relations[world.kinds[name]])
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
    if rng.random() < 0.3:  # another thing, which these passages may not mention
        kind = world.kinds[subject]
        subject = rng.choice([world.spare[kind], rng.choice(world.things[kind])])
    if subject not in world.kinds:
        kind = next(kind for kind, name in world.spare.items() if name == subject)
        return [f"Q: Find the {rng.choice(world.relations[kind]).noun} of {subject}.", ABSENT]
    missing = [
        r for r in world.relations[world.kinds[subject]] if (subject, r.key) not in world.facts and r.key != "spouse"
    ]
    if not missing:
        return []
    relation = rng.choice(missing)
    return [f"Q: Find the {relation.noun} of {subject}.", ABSENT]
