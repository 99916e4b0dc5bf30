"""What planning costs, without an engine: how many records of the graph a strategy reads, and how long its plans take.

A plan should cost what is new since the last one, however large the graph is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from researcher.protocols import Strategy
from researcher.testing.simulate import Reply, Simulation, simulate
from researcher.types import Task, Work
from researcher.views import ClaimInfo, GraphView, Plan, ThreadInfo, View

T = TypeVar("T")


@dataclass(slots=True)
class PlanCost:
    """The cost of a run's plans, in all and of the greediest.

    `reads`: threads, states and claims taken from the graph, and works in flight looked at; `seconds`: processor time
    in `plan` alone.
    """

    run: Simulation | None = None
    plans: int = 0
    reads: int = 0
    most_reads: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    @property
    def reads_per_plan(self) -> float:
        """Reads of the average plan."""
        return self.reads / self.plans

    @property
    def milliseconds(self) -> float:
        """Time of the average plan."""
        return 1e3 * self.seconds / self.plans


def plan_cost(strategy: Strategy, task: Task, reply: Callable[[Work], Reply], *, slots: int = 10_000) -> PlanCost:
    """Run the strategy by `simulate`, and count what its plans cost."""
    cost = PlanCost()
    cost.run = simulate(_Metered(strategy, cost), task, reply, slots=slots)
    return cost


class _Metered:
    """A strategy whose plans are counted."""

    def __init__(self, strategy: Strategy, cost: PlanCost) -> None:
        self._strategy = strategy
        self._cost = cost

    @property
    def needs(self) -> frozenset[str]:
        return self._strategy.needs

    def plan(self, view: View) -> Plan:
        cost, before = self._cost, self._cost.reads
        watched = replace(view, graph=_Graph(view.graph, cost), in_flight=_InFlight(view.in_flight, cost))
        began = time.thread_time()
        plan = self._strategy.plan(watched)
        took = time.thread_time() - began
        cost.plans += 1
        cost.seconds += took
        cost.longest = max(cost.longest, took)
        cost.most_reads = max(cost.most_reads, cost.reads - before)
        return plan


class _Graph:
    """A graph whose answers are counted."""

    def __init__(self, graph: GraphView, cost: PlanCost) -> None:
        self._graph = graph
        self._cost = cost

    def _counted(self, found: Sequence[T]) -> Sequence[T]:
        self._cost.reads += len(found)
        return found

    @property
    def seq(self) -> int:
        return self._graph.seq

    def changes(self, after: int) -> Sequence[ThreadInfo]:
        return self._counted(self._graph.changes(after))

    def state(self, key: str) -> Sequence[str]:
        return self._counted(self._graph.state(key))

    def thread(self, key: str) -> ThreadInfo | None:
        self._cost.reads += 1
        return self._graph.thread(key)

    def threads(self, group: str | None = None) -> Sequence[ThreadInfo]:
        return self._counted(self._graph.threads(group))

    def claim(self, claim_id: str) -> ClaimInfo:
        self._cost.reads += 1
        return self._graph.claim(claim_id)

    def claims(self) -> Iterable[ClaimInfo]:
        return self._counted(list(self._graph.claims()))


class _InFlight(Mapping[str, Work]):
    """Works in flight, counted when they are looked through."""

    def __init__(self, works: Mapping[str, Work], cost: PlanCost) -> None:
        self._works = works
        self._cost = cost

    def __getitem__(self, key: str) -> Work:
        self._cost.reads += 1
        return self._works[key]

    def __iter__(self) -> Iterator[str]:
        self._cost.reads += len(self._works)
        return iter(self._works)

    def __len__(self) -> int:
        return len(self._works)

    def __contains__(self, key: object) -> bool:
        return key in self._works
