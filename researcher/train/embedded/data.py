"""The stream of training examples and the held-out problems: a seed names every example.

Training example `i` of shard `s` depends on (seed, s, i) alone. The mix is `MIX`; `stage` from 0 to 1 moves from
small worlds with few distractors to the worlds of the evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from researcher_tools.corpus import Corpus

from researcher.train.embedded.tasks import arithmetic, countdown, foreign_worlds, lookup, steps, teamwork
from researcher.train.embedded.tasks.documents import (
    Style,
    ask_chain,
    ask_comparison,
    ask_unanswerable,
    solve_chain,
    solve_comparison,
)
from researcher.train.embedded.tasks.example import Example, Skill
from researcher.train.embedded.tasks.worlds import World

MIX: dict[Skill, float] = {
    "one_hop": 0.05,
    "two_hops": 0.05,
    "three_hops": 0.01,
    "comparison": 0.07,
    "unanswerable": 0.05,
    "countdown_3": 0.06,
    "countdown_4": 0.01,
    "arithmetic": 0.01,
    "splitting": 0.01,
    "synthesis": 0.02,
    "judging": 0.07,
    "lookup": 0.09,
    "step_3": 0.09,
    "step_4": 0.10,
    "step_24": 0.05,
    "process": 0.06,
    "outcome": 0.05,
    "value": 0.04,
    "propose": 0.03,
    "choose": 0.02,
    "revise": 0.03,
    "aggregate": 0.03,
}
"""Share of examples by skill; those over documents come in groups that share one world."""

EVAL_SEED = 7_000_003
SKILLS: tuple[Skill, ...] = tuple(skill for skill in MIX if skill != "lookup")
"""The skills that are evaluated: all but the drill."""

DOCUMENT_SKILLS: tuple[Skill, ...] = ("one_hop", "two_hops", "three_hops", "comparison", "unanswerable")
PUZZLE_SKILLS: tuple[Skill, ...] = (
    "step_3", "step_4", "step_24", "process", "outcome", "value", "propose", "choose", "revise", "aggregate",
)  # fmt: skip
FOREIGN = 0.45
"""Share of the worlds with foreign names and phrases."""
UNEVEN = 0.35
"""Share of the comparisons that look for numbers of different lengths; of held-out ones none does."""
_PER_WORLD = 3
_HOPS = {"one_hop": 1, "two_hops": 2, "three_hops": 3}
_TOOL_SETS = (("search", "read"), ("search", "read"), ("search",), ("search", "read", "python"))


def training(seed: int, shard: int, stage: float, mix: dict[Skill, float] | None = None) -> Iterator[Example]:
    """The examples of one shard, without end, in an order that mixes the skills."""
    rng = random.Random(f"train/{seed}/{shard}")
    shares = mix or MIX
    skills = list(shares)
    weights = list(shares.values())
    while True:
        skill = rng.choices(skills, weights)[0]
        if skill in DOCUMENT_SKILLS:
            kinds = [skill, *rng.choices(DOCUMENT_SKILLS, [shares[s] for s in DOCUMENT_SKILLS], k=_PER_WORLD - 1)]
            yield from _over_documents(rng, kinds if rng.random() < 1 / _PER_WORLD else [], stage)
        elif skill == "lookup":
            drill = _drill(rng, stage)
            if drill is not None:
                yield drill
        else:
            yield make(rng, skill, foreign=rng.random() < FOREIGN)


def _world(rng: random.Random, size: int) -> World:
    make_world = foreign_worlds.make if rng.random() < FOREIGN else World.make
    return make_world(rng, size, similar=rng.random() * 0.6)


def _drill(rng: random.Random, stage: float) -> Example | None:
    size = rng.randrange(4, 10) if rng.random() < 0.4 else rng.randrange(4, 6 + int(8 + 27 * stage))
    world = _world(rng, size)
    corpus = Corpus.from_texts(world.texts)
    example = lookup.make(rng, world, corpus)
    corpus.close()
    return example


def _over_documents(rng: random.Random, skills: list[Skill], stage: float) -> Iterator[Example]:
    if not skills:
        return
    size = rng.randrange(4, 6 + int(8 + 27 * stage))
    world = _world(rng, size)
    corpus = Corpus.from_texts(world.texts)
    for skill in skills:
        style = Style(rng.choice(_TOOL_SETS), rng.choice((3, 4, 4, 4, 4, 5)), rng.random() < 0.3)
        for _ in range(20):
            example = solve(rng, world, corpus, skill, style, uneven=rng.random() < UNEVEN)
            if example is not None:
                yield example
                break
    corpus.close()


def solve(
    rng: random.Random, world: World, corpus: Corpus, skill: Skill, style: Style, *, uneven: bool = False
) -> Example | None:
    """One question of this skill over this world with its trace, or None where the draw does not work out."""
    if skill == "comparison":
        comparison = ask_comparison(rng, world, uneven=uneven)
        return comparison and solve_comparison(rng, world, corpus, comparison, style)
    chain = ask_unanswerable(rng, world) if skill == "unanswerable" else ask_chain(rng, world, _HOPS[skill])
    return chain and solve_chain(rng, world, corpus, chain, style)


def make(
    rng: random.Random, skill: Skill, *, held_out: bool = False, documents: int | None = None, foreign: bool = False
) -> Example:
    """One example of any skill over a world of its own."""
    if skill in PUZZLE_SKILLS:
        return steps.make(rng, skill, held_out=held_out)
    make_world = foreign_worlds.make if foreign else World.make
    match skill:
        case "countdown_3" | "countdown_4":
            return countdown.make(rng, int(skill[-1]), held_out=held_out)
        case "arithmetic":
            return arithmetic.make(rng, held_out=held_out)
    while True:
        if skill in DOCUMENT_SKILLS:
            world = make_world(rng, documents or rng.randrange(6, 41), held_out=held_out)
            corpus = Corpus.from_texts(world.texts)
            example = solve(rng, world, corpus, skill, Style())
            corpus.close()
        else:
            world = make_world(rng, rng.randrange(6, 14), held_out=held_out)
            maker = {"splitting": teamwork.make_split, "synthesis": teamwork.make_synthesis}
            example = maker.get(skill, teamwork.make_judgement)(rng, world)
        if example is not None:
            return example


def held_out(skill: Skill, count: int, seed: int = EVAL_SEED, *, foreign: bool = False) -> list[Example]:
    """Evaluation problems: held-out names and numbers, four hits a search, worlds of 6 to 40 documents."""
    name = f"foreign/{skill}" if foreign else skill
    return [make(random.Random(f"eval/{seed}/{name}/{i}"), skill, held_out=True, foreign=foreign) for i in range(count)]
