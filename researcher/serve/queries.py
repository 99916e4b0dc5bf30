"""What can be asked of a recorded run, as plain data of bounded size: `answer`, `why`, `claims`, `threads`, `graph`.

Folds of the log by a reader of its own, so a run can be asked while it goes on, and after it, in any process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from researcher.errors import UserError
from researcher.graph import ThoughtGraph
from researcher.graph.export import node_link
from researcher.graph.nodes import NodeKind
from researcher.report.citations import CitationCheck, GetBlob, check_citations
from researcher.report.why import reads, why
from researcher.report.writer import how_sure
from researcher.store import RunReader, run_path
from researcher.store.runs import summary
from researcher.views import ClaimInfo, ThreadInfo

TEXT = 2_000
"""Characters of one text."""
LINES, IDS, VOTES, CITATIONS = 60, 200, 10, 50
NODES = 500
"""The most of one look at the graph."""
KINDS = tuple(str(kind) for kind in NodeKind)
USUAL = ("run", "thread", "source", "claim", "answer", "verdict")
"""The kinds of nodes that are shown without a choice: what a run came to, without every message of the way."""


def runs(home: Path, limit: int) -> list[dict[str, Any]]:
    """The newest runs of the folder."""
    # Names begin with the time they were made; only the runs that are shown are opened.
    newest = sorted(run_path(home, "any").parent.glob("*.db"), reverse=True)[:limit]
    return [{name: clip(value) for name, value in summary(path)._asdict().items()} for path in newest]


def answer(home: Path, run: str) -> dict[str, Any]:
    """What the run came to: its answer with citations, how sure it is, votes and usage."""
    with _opened(home, run) as (graph, get_blob):
        found = graph.answer
        checks = check_citations(graph, get_blob, claims=found.claims) if found is not None else []
        usage = graph.usage
        return {
            "run": run,
            "question": clip(graph.started.task.question) if graph.started else None,
            "outcome": None if graph.outcome is None else str(graph.outcome),
            "detail": clip(graph.detail),
            "limit": graph.limit,
            "answer": None if found is None else clip(found.text),
            "supported": None if found is None else found.supported,
            "sure": [clip(line.removeprefix("- ").replace("**", "")) for line in how_sure(graph, checks)],
            "citations": [_citation(check) for check in checks[:CITATIONS]],
            "votes": [{"answer": clip(vote.text), "count": vote.count} for vote in graph.votes()[:VOTES]],
            "threads": dict(Counter(str(info.outcome or "open") for info in graph.threads())),
            "usage": {"tokens": usage.tokens, "calls": usage.calls, "cost": usage.cost},
        }


def why_of(home: Path, run: str, claim: str) -> dict[str, Any]:
    """What the answer, or one claim, rests on: lines for a reader, and the ids of the nodes it goes back to."""
    with _opened(home, run) as (graph, get_blob):
        if claim:
            info = _claim(graph, claim)
            read = [f"read in {source} by {call.name} {call.arguments}" for call, source in reads(graph, info)]
            return {**_claim_record(graph, info, get_blob), "lines": [clip(line) for line in read[:LINES]]}
        if graph.answer is None:
            raise UserError(f"the run {run} has no answer, so there is nothing it rests on")
        before = graph.ancestors(graph.answer.canonical)
        by_kind: dict[str, list[str]] = {}
        for node in sorted(before):
            by_kind.setdefault(str(graph.nx.nodes[node]["kind"]), []).append(node)
        return {
            "answer": clip(graph.answer.text),
            "lines": [clip(line) for line in islice(why(graph), LINES)],
            "ancestors": {kind: {"count": len(ids), "ids": ids[:IDS]} for kind, ids in by_kind.items()},
        }


def claims(home: Path, run: str, offset: int, limit: int) -> dict[str, Any]:
    """A page of the claims with their evidence."""
    with _opened(home, run) as (graph, get_blob):
        every = list(graph.claims())
        page = every[offset : offset + limit]
        return {"count": len(every), "claims": [_claim_record(graph, info, get_blob) for info in page]}


def threads(home: Path, run: str, offset: int, limit: int) -> dict[str, Any]:
    """A page of the threads."""
    with _opened(home, run) as (graph, _):
        every = graph.threads()
        return {"count": len(every), "threads": [_thread(info) for info in every[offset : offset + limit]]}


def graph_of(home: Path, run: str, kinds: Collection[str], limit: int) -> dict[str, Any]:
    """The thought graph as node-link data: nodes of these kinds, the first of them, and the edges between them."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"there are no nodes of the kind {unknown[0][:40]!r}; there is {', '.join(KINDS)}")
    with _opened(home, run) as (graph, _):
        whole = node_link(graph)
    nodes = [node for node in whole["nodes"] if node["kind"] in (kinds or USUAL)]
    shown = {node["id"] for node in nodes[:limit]}
    edges = [edge for edge in whole["edges"] if edge["source"] in shown and edge["target"] in shown]
    counts = Counter(node["kind"] for node in whole["nodes"])
    return {
        "run": run,
        "counts": dict(counts),
        "left_out": sum(counts.values()) - len(shown),
        "nodes": [{name: clip(value) for name, value in node.items()} for node in nodes[:limit]],
        "edges": [{"source": edge["source"], "target": edge["target"], "kind": edge["kind"]} for edge in edges],
    }


def clip(value: Any) -> Any:
    """Plain data with its texts and lists cut."""
    if isinstance(value, str):
        return value if len(value) <= TEXT else f"{value[:TEXT]} [cut: {len(value):,} characters]"
    if isinstance(value, list | tuple):
        return [clip(item) for item in value[:IDS]]
    if isinstance(value, dict):
        return {name: clip(item) for name, item in islice(value.items(), IDS)}
    return value


def find(home: Path, run: str) -> Path:
    """The file of the run. Raises UserError, which does not say where the runs are."""
    path = run_path(home, run)
    if not path.is_file():
        raise UserError(f"there is no run {run[:60]!r} here; `runs` lists those there are")
    return path


@contextmanager
def _opened(home: Path, run: str) -> Iterator[tuple[ThoughtGraph, GetBlob]]:
    with RunReader(find(home, run)) as reader:
        yield ThoughtGraph.fold(reader.read()), reader.get_blob


def _claim(graph: ThoughtGraph, claim: str) -> ClaimInfo:
    try:
        return graph.claim(claim)
    except KeyError:
        raise UserError(f"the run has no claim {claim[:60]!r}; `claims` lists them with their ids") from None


def _claim_record(graph: ThoughtGraph, info: ClaimInfo, get_blob: GetBlob) -> dict[str, Any]:
    checks = check_citations(graph, get_blob, claims=[info.id])
    return {
        "id": info.id,
        "text": clip(info.text),
        "verdict": info.verdict,
        "threads": list(info.threads[:IDS]),
        "evidence": [_citation(check) for check in checks[:CITATIONS]],
    }


def _citation(check: CitationCheck) -> dict[str, Any]:
    evidence = check.evidence
    return {
        "claim": check.claim.id,
        "source": clip(check.source),
        "sha256": evidence.sha256,
        "start": evidence.start,
        "end": evidence.end,
        "quote": clip(check.quote),
        "problem": check.problem,
    }


def _thread(info: ThreadInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "role": info.work.role,
        "outcome": None if info.outcome is None else str(info.outcome),
        "detail": clip(info.detail),
        "answer": clip(info.answer),
        "verdict": None if info.verdict is None else str(info.verdict.status),
        "score": info.score,
        "claims": list(info.claims[:IDS]),
        "tokens": info.tokens,
    }
