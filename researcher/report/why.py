"""`why(graph)` says how the answer came about: who proposed it, the claims it rests on, and what was read for each."""

from __future__ import annotations

from collections.abc import Iterator

from researcher.graph import ThoughtGraph
from researcher.graph.nodes import EdgeKind, NodeKind, ToolCallNode, source_id
from researcher.views import ClaimInfo

NAMES = 6
"""Threads or calls of one line; the rest is counted."""


def why(graph: ThoughtGraph) -> Iterator[str]:
    """Indented lines from the answer back to the sources; none where there is no answer."""
    answer = graph.answer
    if answer is None:
        return
    supporters = [vote.supporters for vote in graph.votes() if vote.canonical == answer.canonical]
    yield f'"{answer.text}"'
    if supporters:
        yield f"  proposed by {names(supporters[0])}"
    for claim_id in answer.claims:
        claim = graph.claim(claim_id)
        yield f'  because "{claim.text}"'
        yield f"    reported by {names(claim.threads)}"
        for call, source in reads(graph, claim):
            origin = f" ({', '.join(call.origins)})" if call.origins else ""
            yield f"    read in {source} by {call.name} {call.arguments}{origin}"


def reads(graph: ThoughtGraph, claim: ClaimInfo) -> Iterator[tuple[ToolCallNode, str]]:
    """The tool calls of the claim's threads that showed its sources, at most `NAMES` for each source."""
    threads = set(claim.threads)
    for sha256 in dict.fromkeys(evidence.sha256 for evidence in claim.evidence):
        node = source_id(sha256)
        if node not in graph.nx:
            continue
        shown = 0
        for before, _, kind in graph.nx.in_edges(node, keys=True):
            call = graph.nx.nodes[before]["data"]
            if kind != EdgeKind.READ or graph.nx.nodes[before]["kind"] is not NodeKind.TOOL_CALL:
                continue
            if not threads.isdisjoint(call.threads) and shown < NAMES:
                shown += 1
                yield call, source_name(graph, sha256)


def source_name(graph: ThoughtGraph, sha256: str) -> str:
    """The file or page a source came from, else the beginning of its hash."""
    node = source_id(sha256)
    ref = graph.nx.nodes[node]["data"].ref if node in graph.nx else None
    return ref.name if ref is not None else sha256[:12]


def names(keys: tuple[str, ...]) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - NAMES} more" if len(keys) > NAMES else ""
    return ", ".join(keys[:NAMES]) + more
