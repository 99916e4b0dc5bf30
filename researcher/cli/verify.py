"""`researcher verify`: is the log whole, and do the quotes stand where they are said to stand?"""

from __future__ import annotations

import typer

from researcher.cli.exits import Exit
from researcher.cli.options import Home, Json, RunId, home_of
from researcher.cli.output import Output
from researcher.cli.runs import find_run
from researcher.graph import ThoughtGraph
from researcher.replay.frames import clip
from researcher.report.citations import check_citations
from researcher.store import RunReader


def verify(run: RunId, home: Home = None, json: Json = False) -> None:
    """Check a run again, offline: every event, every source, every citation. Exit 3 where a quote does not stand."""
    output = Output(json=json)
    with RunReader(find_run(home_of(home), run)) as reader:
        reader.verify(blobs=True)
        graph = ThoughtGraph.fold(reader.read())
        checks = check_citations(graph, reader.get_blob)
        events, sources = reader.head(), len(reader.blobs())
    bad = [check for check in checks if not check.ok]
    output.line({"events": events, "sources": sources, "citations": len(checks), "broken": len(bad)})
    output.data(f"{events:,} events and {sources:,} sources are whole")
    output.data(f"{len(checks) - len(bad):,} of {len(checks):,} citations stand in their sources")
    for check in bad:
        span = f"{check.source}:{check.evidence.start}-{check.evidence.end}"
        output.data(f'  "{clip(check.claim.text, 100)}" {span}: {check.problem}')
    raise typer.Exit(Exit.UNVERIFIED if bad else Exit.ANSWERED)
