"""`researcher export`: a run as JSON, GraphML or its bare events, for other programs."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from researcher.cli.options import Home, RunId, home_of
from researcher.cli.output import Output
from researcher.cli.runs import find_run
from researcher.graph import ThoughtGraph
from researcher.graph.export import graphml, node_link
from researcher.store import RunReader


class Format(StrEnum):
    """What to write."""

    JSON = "json"
    GRAPHML = "graphml"
    EVENTS = "events"


def export(
    run: RunId,
    format: Annotated[Format, typer.Option(help="The thought graph as node-link JSON or GraphML, or the events.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; stdout without it.")] = None,
    home: Home = None,
) -> None:
    """Export a run."""
    with RunReader(find_run(home_of(home), run)) as reader:
        if format is Format.EVENTS:
            data = b"".join(msgspec.json.encode(event) + b"\n" for event in reader.read())
        else:
            graph = ThoughtGraph.fold(reader.read())
            text = json.dumps(node_link(graph), ensure_ascii=False) if format is Format.JSON else graphml(graph)
            data = text.encode() + b"\n"
    if out is None:
        sys.stdout.write(data.decode())
    else:
        out.write_bytes(data)
        Output().note(f"{out}: {len(data):,} bytes")
