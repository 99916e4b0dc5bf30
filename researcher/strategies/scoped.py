"""Strategies inside strategies: a view in which a run sees only its own part of the graph.

The keys of a scope's threads begin with its prefix, and what they share with others (groups, which decide where a
prompt is cached) with the prefix of all scopes of that name. The strategy inside knows neither: it plans with keys of
its own, and is shown its own threads, changes, work in flight and memo. All is a fold of the graph, at the cost of
what changed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from msgspec.structs import replace as renamed

from researcher.protocols import Strategy
from researcher.strategies.base import seed_of
from researcher.types import Work
from researcher.views import ClaimInfo, GraphView, Plan, ThreadInfo, View


class Scope:
    """What is known of one run: its threads' works and groups, those that run, and its changes by event."""

    def __init__(self, name: str, label: str) -> None:
        self.prefix = f"{name}/{label}/"
        self.shared = f"{name}/"
        self.works: dict[str, Work] = {}
        self.running: dict[str, Work] = {}
        self.groups: dict[str, list[str]] = {}
        self.log: list[tuple[int, str]] = []
        self.memo: dict[str, Any] = {}

    def take(self, key: str, thread: ThreadInfo, seq: int) -> None:
        """Take in a thread of the run as it is now, after event `seq`."""
        work = self.works.get(key)
        if work is None:
            work = self.works[key] = self._inner(key, thread.work)
            self.groups.setdefault(work.group, []).append(key)
        self.log.append((seq, key))
        if thread.outcome is None:
            self.running[key] = work
        else:
            self.running.pop(key, None)

    def _inner(self, key: str, work: Work) -> Work:
        cut = len(self.prefix)
        return renamed(
            work,
            key=key,
            group=work.group[len(self.shared) :],
            parent=work.parent[cut:],
            uses=tuple([used[cut:] for used in work.uses]),
        )

    def outer(self, work: Work) -> Work:
        """The work under its name in the whole graph."""
        return renamed(
            work,
            key=self.prefix + work.key,
            group=self.shared + work.group,
            parent=self.prefix + work.parent if work.parent else "",
            uses=tuple([self.prefix + used for used in work.uses]),
        )

    def info(self, thread: ThreadInfo) -> ThreadInfo:
        """A thread of the whole graph under its name in the run."""
        key = thread.key[len(self.prefix) :]
        return thread._replace(key=key, work=self.works[key])


class ScopedGraph:
    """The part of a graph that belongs to a scope; claims are those of the whole graph, equal ones being one node."""

    def __init__(self, graph: GraphView, scope: Scope, seq: int) -> None:
        self._graph = graph
        self._scope = scope
        self.seq = seq

    def changes(self, after: int) -> Sequence[ThreadInfo]:
        """The scope's threads that started, ended or were opened again after this event, as they are now."""
        log = self._scope.log
        begin = bisect_right(log, after, key=lambda entry: entry[0])
        return self._infos(dict.fromkeys(key for _, key in log[begin:]))

    def state(self, key: str) -> Sequence[str]:
        """The keys of the scope's threads that stand in this state, in the order they came to it."""
        prefix = self._scope.prefix
        return [key[len(prefix) :] for key in self._graph.state(key) if key.startswith(prefix)]

    def thread(self, key: str) -> ThreadInfo | None:
        """A thread of the scope."""
        return next(iter(self._infos([key])), None) if key in self._scope.works else None

    def threads(self, group: str | None = None) -> Sequence[ThreadInfo]:
        """The scope's threads in submission order, of one group or all."""
        return self._infos(self._scope.works if group is None else self._scope.groups.get(group, ()))

    def claim(self, claim_id: str) -> ClaimInfo:
        """A claim."""
        return self._graph.claim(claim_id)

    def claims(self) -> Iterable[ClaimInfo]:
        """All claims of the run."""
        return self._graph.claims()

    def _infos(self, keys: Iterable[str]) -> list[ThreadInfo]:
        found = (self._graph.thread(self._scope.prefix + key) for key in keys)
        return [self._scope.info(thread) for thread in found if thread is not None]


class Scopes:
    """All scopes of one name, as a fold kept in the view's memo; a label tells them apart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scopes: dict[str, Scope] = {}
        self.seq = 0

    @classmethod
    def of(cls, view: View, name: str) -> Scopes:
        """The scopes of the view's graph, up to date."""
        scopes = view.memo.get(f"scopes of {name}")
        if not isinstance(scopes, cls):
            scopes = view.memo[f"scopes of {name}"] = cls(name)
        scopes.update(view)
        return scopes

    def update(self, view: View) -> dict[str, None]:
        """Take in what changed; the labels of the scopes that did, in order."""
        touched: dict[str, None] = {}
        start, seq = len(self.name) + 1, view.graph.seq
        for thread in view.graph.changes(self.seq):
            if thread.key.startswith(f"{self.name}/"):
                label, _, key = thread.key[start:].partition("/")
                self.scope(label).take(key, thread, seq)
                touched[label] = None
        self.seq = seq
        return touched

    def scope(self, label: str) -> Scope:
        """The scope of this label; empty where none of its threads has started."""
        known = self.scopes.get(label)
        if known is None:
            known = self.scopes[label] = Scope(self.name, label)
        return known

    def plan(self, view: View, label: str, strategy: Strategy, *, free: int, memo: str = "") -> Plan:
        """What the strategy plans in this scope with so many free slots, under the names of the whole graph.

        `memo` names the part of the scope's memo that is the strategy's, where several plan in one scope. A strategy
        with nothing in flight and no slot would take itself to be at its end, while here others have the slots: it is
        shown one, and what it would start there waits.
        """
        scope = self.scope(label)
        inner = replace(
            view,
            graph=ScopedGraph(view.graph, scope, self.seq),
            in_flight=scope.running,
            free=free if scope.running else max(1, free),
            seed=seed_of(view.seed, scope.prefix),
            memo=scope.memo.setdefault(memo, {}),
        )
        plan = strategy.plan(inner)
        return replace(
            plan,
            start=tuple([scope.outer(work) for work in plan.start[:free]]),
            cancel=tuple([scope.prefix + key for key in plan.cancel]),
        )
