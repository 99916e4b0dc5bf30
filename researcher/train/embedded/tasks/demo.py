"""A folder of documents from a held-out world, with questions and their right answers: `write_world(...)`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from researcher_tools.corpus import Corpus

from researcher.train.embedded.tasks.documents import (
    Chain,
    Comparison,
    Hop,
    Style,
    ask_chain,
    ask_comparison,
    solve_chain,
    solve_comparison,
)
from researcher.train.embedded.tasks.teamwork import MultiPart, ask_parts
from researcher.train.embedded.tasks.worlds import World

QUESTIONS = {"one_hop": 4, "two_hops": 4, "three_hops": 2, "comparison": 4, "multi_part": 4}
"""How many questions of each form."""


def write_world(seed: int, folder: Path, documents: int = 24) -> list[dict[str, Any]]:
    """Write the documents and `questions.jsonl`; gives the questions. The same seed gives the same folder."""
    rng = random.Random(f"demo/{seed}")
    world = World.make(rng, documents, held_out=True, density=0.85)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in world.texts.items():
        (folder / name).write_text(text, "utf-8")
    questions = list(_questions(rng, world))
    lines = [json.dumps(question, ensure_ascii=False) for question in questions]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return questions


def _questions(rng: random.Random, world: World) -> list[dict[str, Any]]:
    corpus = Corpus.from_texts(dict(sorted(world.texts.items())))
    found: dict[str, dict[str, Any]] = {}
    for form, count in QUESTIONS.items():
        wanted, tries = len(found) + count, 0
        while len(found) < wanted and tries < 500:
            tries += 1
            asked = _ask(rng, world, form)
            if asked is not None and _solvable(rng, world, corpus, asked):
                found.setdefault(asked.question, _described(form, asked))
    corpus.close()
    return list(found.values())


def _ask(rng: random.Random, world: World, form: str) -> Chain | Comparison | MultiPart | None:
    match form:
        case "comparison":
            return ask_comparison(rng, world)
        case "multi_part":
            return ask_parts(rng, world)
    return ask_chain(rng, world, {"one_hop": 1, "two_hops": 2, "three_hops": 3}[form])


def _solvable(rng: random.Random, world: World, corpus: Corpus, asked: Chain | Comparison | MultiPart) -> bool:
    match asked:
        case Chain():
            return solve_chain(rng, world, corpus, asked, Style()) is not None
        case Comparison():
            return solve_comparison(rng, world, corpus, asked, Style()) is not None
        case MultiPart():
            return all(_solvable(rng, world, corpus, part) for part in asked.parts)


def _described(form: str, asked: Chain | Comparison | MultiPart) -> dict[str, Any]:
    hops: list[Hop] = (
        [hop for part in asked.parts for hop in part.hops] if isinstance(asked, MultiPart) else list(asked.hops)
    )
    evidence = [{"source": hop.fact.source, "quote": hop.fact.sentence} for hop in hops if hop.fact is not None]
    return {"question": asked.question, "answer": asked.answer, "form": form, "evidence": evidence}
