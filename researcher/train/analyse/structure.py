"""What a search does on the graph, counted from its threads: branches, branches left, merges, revisions, checks.

The words of a thought say how one model searches; these counts say how a strategy does, with whatever model.
"""

from __future__ import annotations

from collections import Counter

from researcher.graph import ThoughtGraph
from researcher.types import Frozen, Outcome, VerdictStatus


class Structure(Frozen, frozen=True, kw_only=True):
    """Counts of one run's reasoner threads.

    `roots` begin a conversation of their own; `branches` are continuations of a step beyond its first; `depth` is the
    longest chain of steps. `left`: steps that nothing continued and that came to no answer, and threads that were
    cancelled. `merges`: threads that came to a state another had come to. `aggregations` were made from several
    threads' findings, `revisions` from one's. `scores` and `verdicts` count judgements: of a search's scorer, of the
    task's verifier. `right`: the accepted answer; wrong where the run ended without one of its own accord or at its
    budget, None where nobody can tell.
    """

    run: str
    task: str
    strategy: str
    right: bool | None = None
    threads: int = 0
    roots: int = 0
    steps: int = 0
    branches: int = 0
    depth: int = 0
    left: int = 0
    merges: int = 0
    aggregations: int = 0
    revisions: int = 0
    scores: int = 0
    verdicts: int = 0


COUNTS = tuple(name for name in Structure.__struct_fields__ if name not in ("run", "task", "strategy", "right"))


def structure_of(graph: ThoughtGraph, run: str, task: str, roles: frozenset[str]) -> Structure:
    """The counts of a run."""
    threads = [info for info in graph.threads() if info.work.role in roles]
    steps = {info.key: info for info in threads if info.work.kind == "step"}
    children = Counter(info.work.parent for info in steps.values() if info.work.parent in steps)
    states = Counter(info.state for info in threads if info.state is not None)
    depth: dict[str, int] = {}
    for key, info in steps.items():  # a parent ended before its child began, so it comes first
        depth[key] = 1 + depth.get(info.work.parent, 0)
    started = graph.started
    return Structure(
        run=run,
        task=task,
        strategy="" if started is None else started.strategy,
        right=_right(graph),
        threads=len(threads),
        roots=sum(not info.work.parent and not info.work.uses for info in threads),
        steps=len(steps),
        branches=sum(n - 1 for n in children.values()),
        depth=max(depth.values(), default=0),
        left=sum(
            info.outcome is Outcome.CANCELLED or (info.key in steps and not children[info.key] and info.answer is None)
            for info in threads
        ),
        merges=sum(n - 1 for n in states.values()),
        aggregations=sum(len(info.work.uses) > 1 for info in threads),
        revisions=sum(len(info.work.uses) == 1 for info in threads),
        scores=sum(info.score is not None for info in threads),
        verdicts=sum(info.verdict is not None for info in threads),
    )


def _right(graph: ThoughtGraph) -> bool | None:
    if graph.answer is None:
        return False if graph.outcome in (Outcome.EXHAUSTED, Outcome.ANSWERED) else None
    of_class = [
        info.verdict.status for info in graph.threads() if info.canonical == graph.answer.canonical and info.verdict
    ]
    if VerdictStatus.CORRECT in of_class:
        return True
    return False if VerdictStatus.WRONG in of_class else None
