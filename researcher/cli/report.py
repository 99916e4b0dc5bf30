"""`researcher report`: the cited report of a run, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from researcher.cli.options import Home, RunId, home_of
from researcher.cli.output import Output
from researcher.cli.runs import find_run
from researcher.graph import ThoughtGraph
from researcher.report.writer import render_report
from researcher.store import RunReader


def report(
    run: RunId,
    out: Annotated[Path | None, typer.Option(help="The file to write; stdout without it.")] = None,
    home: Home = None,
) -> None:
    """Write the report: answer, how sure it is, numbered quotes of stored sources, what failed, what it cost."""
    with RunReader(find_run(home_of(home), run)) as reader:
        text = render_report(ThoughtGraph.fold(reader.read()), reader.get_blob)
    output = Output()
    if out is None:
        output.data(text.rstrip("\n"))
    else:
        out.write_text(text, "utf-8")
        output.note(f"report written to {out}")
