"""`researcher demo`: the main job on shipped documents, with the embedded model: no key, no GPU, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import anyio
import typer

from researcher.cli.job import resolve
from researcher.cli.options import Home, Json, given
from researcher.cli.output import Output
from researcher.cli.run import start
from researcher.config import load_settings

DOCUMENTS = Path(__file__).parent / "demo_docs"
QUESTION = Path(__file__).parent / "demo_question.txt"
SAMPLES = 8
"""Threads for each sub-question; with the planner and the writers there are more than 16."""


def demo(
    threads: Annotated[int, typer.Option(help="Threads for each sub-question.")] = SAMPLES,
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
    home: Home = None,
    json: Json = False,
) -> None:
    """Answer a question in several parts from the shipped documents, with citations. Exit 0 only with evidence."""
    flags = given(model="embedded", docs=DOCUMENTS, strategy="research", threads=threads, seed=seed, home=home)
    # A person's own researcher.toml is not the demo's: its environment is empty, and it looks in its own folder.
    settings = load_settings(flags=flags, env={}, cwd=DOCUMENTS)
    output = Output(json=json)
    job = resolve(QUESTION.read_text("utf-8"), settings)
    output.note(f"question: {job.task.question}")
    output.note(f"documents: {DOCUMENTS} (an invented world; the model has never seen its names)")
    raise typer.Exit(anyio.run(start, job, output))
