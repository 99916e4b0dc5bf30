"""`researcher show`: the answer of a run, what it rests on, and how it came about."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import msgspec
import typer

from researcher.cli.options import Home, Json, RunId, home_of
from researcher.cli.output import Output, spent
from researcher.cli.runs import find_run
from researcher.errors import UserError
from researcher.graph import ThoughtGraph
from researcher.graph.nodes import NodeKind
from researcher.replay.frames import clip
from researcher.report.citations import CitationCheck, GetBlob, check_citations
from researcher.report.why import names, why
from researcher.report.writer import how_sure
from researcher.store import RunReader

CALL = NodeKind.TOOL_CALL
WHY = 40
"""Steps of the way to the answer that are shown."""


def show(
    run: RunId,
    thread: Annotated[str | None, typer.Option(help="One thread's conversation, by its key.")] = None,
    claims: Annotated[bool, typer.Option("--claims", help="Every claim of the run with its evidence.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show a run: answer, votes with supporters, claims with quotes, threads, usage and why."""
    output = Output(json=json)
    with RunReader(find_run(home_of(home), run)) as reader:
        graph = ThoughtGraph.fold(reader.read())
        if thread is not None:
            _show_thread(graph, thread, output=output)
        elif claims:
            _show_claims(graph, reader.get_blob, output=output)
        else:
            _show_run(reader, graph, output=output)


def print_answer(graph: ThoughtGraph, get_blob: GetBlob, *, output: Output) -> None:
    """The answer with the quotes it rests on, or that there is none."""
    answer = graph.answer
    if answer is None:
        output.data("no answer")
        return
    output.data(answer.text, style="bold")
    for number, check in enumerate(check_citations(graph, get_blob, claims=answer.claims), 1):
        output.data(f"  [{number}] {_cited(check)}")
    if wrong := graph.refutation:
        output.data(f"  wrong, says the verifier {wrong.by}{': ' if wrong.reason else ''}{wrong.reason}")
    elif answer.supported is False:
        output.data("  not verified: no evidence or no verifier bears this answer")


def _cited(check: CitationCheck) -> str:
    quote = clip(check.quote or check.claim.text, 300)
    problem = f"  PROBLEM: {check.problem}" if check.problem else ""
    return f'"{quote}"  {check.source}:{check.evidence.start}-{check.evidence.end}{problem}'


def _show_run(reader: RunReader, graph: ThoughtGraph, *, output: Output) -> None:
    began, run, get_blob = graph.started, reader.run, reader.get_blob
    checks = check_citations(graph, get_blob, claims=graph.answer.claims) if graph.answer else []
    threads = Counter(str(info.outcome or "open") for info in graph.threads())
    output.line(_record(run, graph, checks=checks, threads=threads))
    if began is not None:
        output.data(f"question  {began.task.question}")
        output.data(f"run       {run}: {began.strategy} on {began.model}, seed {began.seed}")
    detail = f" ({clip(graph.detail)})" if graph.detail else ""
    output.data(
        f"ended     {graph.outcome}{detail}" if graph.outcome else "ended     not yet; researcher resume goes on"
    )
    output.data()
    print_answer(graph, get_blob, output=output)
    output.data("\nhow sure")
    for line in how_sure(graph, checks):
        output.data(f"  {line.removeprefix('- ').replace('**', '')}")
    output.data("\nvotes")
    for vote in graph.votes()[:10]:
        output.data(f"  {vote.count:>5}  {clip(vote.text, 60)}  by {names(vote.supporters)}")
    output.data(f"\nthreads   {', '.join(f'{n:,} {state}' for state, n in threads.most_common())}")
    if origins := origins_read(graph):
        output.data(f"words of  {', '.join(clip(origin, 60) for origin in origins)}")
    for line in refusals(graph):
        output.data(f"refused   {clip(line, 200)}")
    output.data(f"usage     {spent(graph.usage)}")
    steps = list(why(graph))
    if steps:
        output.data("\nwhy")
        for step in steps[:WHY]:
            indent = len(step) - len(step.lstrip())
            output.data("  " + " " * indent + clip(step, 200))
        if len(steps) > WHY:
            output.data(f"  and {len(steps) - WHY} more; researcher export has the whole graph")


def _record(run: str, graph: ThoughtGraph, *, checks: list[CitationCheck], threads: Counter[str]) -> dict[str, Any]:
    """The same for a machine."""
    return {
        "id": run,
        "question": graph.started.task.question if graph.started else None,
        "outcome": graph.outcome,
        "answer": graph.answer,
        "citations": [_citation_record(check) for check in checks],
        "votes": [{"text": vote.text, "count": vote.count, "threads": vote.supporters} for vote in graph.votes()],
        "threads": dict(threads),
        "usage": graph.usage,
        "origins": origins_read(graph),
        "refused": refusals(graph),
    }


def origins_read(graph: ThoughtGraph) -> list[str]:
    """Whose words the threads of the run read, each once, in the order in which threads began."""
    return list(dict.fromkeys(origin for thread in graph.threads() for origin in thread.origins))


def refusals(graph: ThoughtGraph) -> list[str]:
    """The calls that were refused, with the threads that made them."""
    calls = [attributes["data"] for _, attributes in graph.nx.nodes(data=True) if attributes["kind"] is CALL]
    refused = [call for call in calls if "refused" in call.outcomes]
    return [f"{call.name} {call.arguments} by {names(tuple(dict.fromkeys(call.threads)))}" for call in refused]


def _citation_record(check: CitationCheck) -> dict[str, Any]:
    evidence = msgspec.to_builtins(check.evidence)
    return {
        **evidence,
        "origins": list(check.claim.origins),
        "source": check.source,
        "quote": check.quote,
        "claim": check.claim.text,
        "ok": check.ok,
    }


def _show_claims(graph: ThoughtGraph, get_blob: GetBlob, *, output: Output) -> None:
    for claim in graph.claims():
        checks = check_citations(graph, get_blob, claims=[claim.id])
        output.line(
            {
                "claim": claim.text,
                "verdict": claim.verdict,
                "threads": list(claim.threads),
                "origins": list(claim.origins),
                "evidence": [_citation_record(check) for check in checks],
            }
        )
        origins = f"; from {', '.join(claim.origins)}" if claim.origins else ""
        output.data(f"{claim.text}  ({claim.verdict or 'not judged'}; {len(claim.threads)} threads{origins})")
        for check in checks:
            output.data(f"    {_cited(check)}")
        if not checks:
            output.data("    no evidence: these words stand in no source the thread named")


def _show_thread(graph: ThoughtGraph, key: str, *, output: Output) -> None:
    info = graph.thread(key)
    if info is None:
        keys = [thread.key for thread in graph.threads()]
        shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
        raise UserError(f"the run has no thread {key!r}; it has {shown or 'none'}")
    for node, message in zip(graph.path(key), graph.messages(key), strict=True):
        output.line(message)
        said = ", ".join(part for part in (node.status if node.status != "ok" else "", node.origin) if part)
        output.data(f"[{message.role}]" + (f" {said}" if said else ""), style="bold")
        if message.reasoning:
            output.data(f"<think>\n{message.reasoning}\n</think>")
        if message.content:
            output.data(message.content)
        for call in message.tool_calls:
            output.data(f"-> {call.name} {call.arguments}")
    output.note(f"{key}: {info.outcome or 'open'}" + (f" ({info.detail})" if info.detail else ""))
    if info.origins:
        output.note(f"it has read the words of: {', '.join(info.origins)}")
