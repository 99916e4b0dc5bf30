"""`researcher ls`: the runs there are, the newest first."""

from __future__ import annotations

import time

from researcher.cli.options import Home, Json, home_of
from researcher.cli.output import Output
from researcher.replay.frames import clip
from researcher.store import list_runs


def ls(home: Home = None, json: Json = False) -> None:
    """List the runs: id, when, how it ended, the question and its answer."""
    where = home_of(home)
    output = Output(json=json)
    runs = list_runs(where)
    for run in reversed(runs):
        output.line(run._asdict())
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else "-"
        answer = f" -> {clip(run.answer, 40)}" if run.answer else ""
        output.data(f"{run.id}  {when}  {run.outcome:<10}  {clip(run.problem or run.question, 70)}{answer}")
    if not runs:
        output.note(f"there are no runs in {where}")
