"""`check_citations(graph, get_blob)` holds every quote against the stored bytes: by string match, offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from researcher.errors import StoreError
from researcher.graph import ThoughtGraph
from researcher.graph.quotes import find_quote
from researcher.report.why import source_name
from researcher.types import Evidence
from researcher.views import ClaimInfo

GetBlob = Callable[[str], bytes]


class CitationCheck(NamedTuple):
    """One span a claim rests on. `quote` is what stands there; `problem` is empty where it bears the claim."""

    claim: ClaimInfo
    evidence: Evidence
    source: str
    quote: str
    problem: str

    @property
    def ok(self) -> bool:
        """Whether the claim's words stand at the span, in bytes that have the source's hash."""
        return not self.problem


def check_citations(
    graph: ThoughtGraph, get_blob: GetBlob, *, claims: Iterable[str] | None = None
) -> list[CitationCheck]:
    """Every evidence of these claims (ids), or of all claims of the graph, in their order."""
    infos = graph.claims() if claims is None else [graph.claim(claim) for claim in claims]
    texts: dict[str, str | StoreError] = {}
    return [
        _check(graph, get_blob, claim=info, evidence=evidence, texts=texts)
        for info in infos
        for evidence in info.evidence
    ]


def _check(
    graph: ThoughtGraph,
    get_blob: GetBlob,
    *,
    claim: ClaimInfo,
    evidence: Evidence,
    texts: dict[str, str | StoreError],
) -> CitationCheck:
    name = source_name(graph, evidence.sha256)
    text = texts.get(evidence.sha256)
    if text is None:
        text = texts[evidence.sha256] = _read(get_blob, evidence.sha256)
    if isinstance(text, StoreError):
        return CitationCheck(claim, evidence, name, "", str(text))
    quote = text[evidence.start : evidence.end]
    problem = "" if find_quote(claim.text, quote) else "the quoted words do not stand at this span of the stored source"
    return CitationCheck(claim, evidence, name, quote, problem)


def _read(get_blob: GetBlob, sha256: str) -> str | StoreError:
    try:
        return get_blob(sha256).decode("utf-8")
    except StoreError as error:
        return error
    except UnicodeDecodeError:
        return StoreError(f"the stored source {sha256[:12]} is not text")
