"""Credit from the thought graph: what each thread gave to the accepted answer.

`CreditOf(graph)(thread)` is read when the paths are, because the graph is there then. It looks at the graph's end: who
voted for the accepted class, whose words and findings it rests on (through conversations that were continued and
threads whose findings others were told of), and what became of the claims that each thread quoted from a source.
"""

from __future__ import annotations

from researcher.graph import ThoughtGraph
from researcher.graph.nodes import thread_id
from researcher.train.sample import Credit
from researcher.types import VerdictStatus
from researcher.views import ThreadInfo

CONTRADICTED = "contradicted"
UPHELD = ("supported", "unverified", None)
"""Words of a judge by which a quoted claim stands: where nobody could judge it, the source still has the quote."""


class CreditOf:
    """The credit of threads of one graph, which must not change meanwhile."""

    def __init__(self, graph: ThoughtGraph) -> None:
        self._graph = graph
        answer = graph.answer
        self._accepted = None if answer is None else answer.canonical
        self._beneath = set[str]() if answer is None else graph.ancestors(answer.canonical)
        self._cited = set[str]() if answer is None else {self._root(claim) for claim in answer.claims}
        self._refuted = answer is not None and (answer.supported is False or self._wrong(answer.canonical))

    def __call__(self, info: ThreadInfo) -> Credit | None:
        """What the thread gave; None where the run has no accepted answer."""
        if self._accepted is None:
            return None
        cited = [claim for claim in info.claims if claim in self._beneath or self._root(claim) in self._cited]
        verdicts = [self._graph.claim(claim).verdict for claim in cited]
        return Credit(
            voted=info.canonical == self._accepted,
            used=thread_id(info.key) in self._beneath or bool(cited),
            refuted=self._refuted,
            claims=len(info.claims),
            cited=len(cited),
            upheld=sum(verdict in UPHELD for verdict in verdicts),
            contradicted=verdicts.count(CONTRADICTED),
        )

    def _root(self, claim: str) -> str:
        """The claim that this one was merged into; itself where the graph has no such claim."""
        try:
            return self._graph.claim(claim).id
        except KeyError:
            return claim

    def _wrong(self, canonical: str) -> bool:
        judged = [t.verdict.status for t in self._graph.threads() if t.canonical == canonical and t.verdict is not None]
        return VerdictStatus.WRONG in judged
