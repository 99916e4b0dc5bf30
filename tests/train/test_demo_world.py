"""The demo folder: the same for a seed, and every question is answered by what its documents say."""

from __future__ import annotations

import json
from pathlib import Path

from researcher.train.embedded.tasks.demo import QUESTIONS, write_world


def test_a_seed_names_the_folder(tmp_path: Path) -> None:
    one = write_world(5, tmp_path / "one")
    assert write_world(5, tmp_path / "two") == one
    assert {p.name: p.read_text() for p in (tmp_path / "one").iterdir()} == {
        p.name: p.read_text() for p in (tmp_path / "two").iterdir()
    }


def test_questions_carry_answers_and_verbatim_evidence(tmp_path: Path) -> None:
    asked = write_world(6, tmp_path)
    assert [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()] == asked
    assert {question["form"] for question in asked} == set(QUESTIONS)
    for question in asked:
        for evidence in question["evidence"]:
            assert evidence["quote"] in (tmp_path / evidence["source"]).read_text()
        if question["form"] == "multi_part":
            assert question["answer"].count("; ") == question["question"].count(", ")
