"""What a strategy sees of a run, and what it answers: `View` in, `Plan` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from researcher.types import Answer, Capabilities, FinishReason, Outcome, Task, Verdict, Work


class ThreadInfo(NamedTuple):
    """A thread as strategies see it. `answer` and `canonical` are None until it proposed one.

    `claims` are those it quoted with evidence of its own: what others found for the same words does not count.
    `final` is its last message; of a step, that step's text alone. `score` in [0, 1] is the scorer's (None: it has
    none, or could not score), `state` the task's state it came to, `confidence` that of each token of its last reply.
    `tokens` are all it has used, prompts included; `sampled` are those that were sampled. `origins`: whose words it has
    read, with what the threads it was told of had read when it began.
    """

    key: str
    work: Work
    order: int
    outcome: Outcome | None
    answer: str | None
    canonical: str | None
    final: str
    verdict: Verdict | None
    claims: tuple[str, ...]
    detail: str
    score: float | None = None
    state: str | None = None
    finish: FinishReason | None = None
    confidence: tuple[float, ...] = ()
    tokens: int = 0
    sampled: int = 0
    origins: tuple[str, ...] = ()


class ClaimInfo(NamedTuple):
    """A claim node: equal claims of several threads are one node. `origins`: where the sources it cites came from."""

    id: str
    text: str
    threads: tuple[str, ...]
    evidence: tuple[Any, ...]
    verdict: str | None
    origins: tuple[str, ...] = ()


class GraphView(Protocol):
    """What a strategy may ask of the thought graph; every query is O(result), not O(graph)."""

    @property
    def seq(self) -> int:
        """The number of the last event."""
        ...

    def changes(self, after: int) -> Sequence[ThreadInfo]:
        """The threads that started, ended or were opened again after event `after`, each once, as they are now.

        What a plan keeps in `View.memo` is brought up to date with these, at a cost that does not grow with the graph.
        """
        ...

    def state(self, key: str) -> Sequence[str]:
        """The keys of the threads that stand in this state, in the order they came to it."""
        ...

    def thread(self, key: str) -> ThreadInfo | None: ...

    def threads(self, group: str | None = None) -> Sequence[ThreadInfo]:
        """Threads in submission order, of one group or all."""
        ...

    def claim(self, claim_id: str) -> ClaimInfo: ...

    def claims(self) -> Iterable[ClaimInfo]: ...


class BudgetLeft(NamedTuple):
    """What is left of each limit (None: unlimited); `spendable` is False once only the reserve is left."""

    tokens: float | None
    calls: float | None
    seconds: float | None
    cost: float | None
    spendable: bool
    exhausted: bool
    sampled: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All a strategy knows when it plans.

    `memo` is the run's scratch: a strategy may keep there what it folded from the graph, under a name of its own, and
    must be able to do without: after a resume it is empty, and the same plans must follow. `state` is the task's
    state after some steps (None: no legal state), for steps that no thread wrote; None where the task knows no states.
    `capabilities` are the model's, for a strategy that chooses among others.
    """

    task: Task
    graph: GraphView
    in_flight: Mapping[str, Work]
    free: int
    budget: BudgetLeft
    seed: int = 0
    draining: bool = False
    memo: dict[str, Any] = field(default_factory=dict)
    state: Callable[[Sequence[str]], str | None] | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next. An `answer` or a `failure` (why there can be none) ends the run; a plan of neither, with
    nothing to start and nothing in flight, is a defect of the strategy. `limited`: the budget kept the strategy
    from work that it wanted to do first."""

    start: tuple[Work, ...] = ()
    cancel: tuple[str, ...] = ()
    answer: Answer | None = None
    failure: str | None = None
    limited: bool = False
