"""`researcher replay`: plays a run from its events; no model and no tool is called."""

from __future__ import annotations

from typing import Annotated

import typer

from researcher.cli.options import Home, Json, RunId, home_of
from researcher.cli.output import Output, counted
from researcher.cli.runs import find_run
from researcher.errors import UserError
from researcher.replay.frames import Frame, frame_json, frames
from researcher.replay.player import play
from researcher.store import RunReader


def replay(
    run: RunId,
    speed: Annotated[float, typer.Option(help="2 is twice as fast as it was; pauses are at most 2 s.")] = 1.0,
    instant: Annotated[bool, typer.Option("--instant", help="No pauses.")] = False,
    until: Annotated[int | None, typer.Option(help="Stop after the event with this number.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Play a run in the terminal, from its event log alone."""
    if until is not None and until < 1:
        raise UserError(f"--until {until}: events are numbered from 1")
    output = Output(json=json)

    def show(frame: Frame) -> None:
        output.line(frame_json(frame))
        output.data(f"{frame.seq:>6} {frame.at - began:7.1f}s  {frame.thread or 'run'}  {frame.text}")

    with RunReader(find_run(home_of(home), run)) as reader:
        began = reader.event(1).at if reader.head() else 0.0
        last = play(frames(reader.read(), until), show, speed=None if instant else speed)
    if last is None:
        output.note("nothing happened in this run")
        return
    tally = last.tally
    leading = ", ".join(f"{clip_answer} ({votes})" for clip_answer, votes in tally.leading)
    output.note(f"{counted(tally.threads)}; {tally.tokens:,} tokens in {tally.calls:,} calls")
    if leading:
        output.note(f"leading: {leading}")
