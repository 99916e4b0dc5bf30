"""Runs a strategy without an engine: threads end at simulated times, in simulated slots, with answers you decide.

Strategies are pure, so this is all they need; thousands of runs take seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from researcher.events import (
    AnswerProposed,
    ClaimAdded,
    Event,
    EventBody,
    MessageAdded,
    RunStarted,
    Scored,
    StateReached,
    ThreadFinished,
    ThreadStarted,
)
from researcher.graph import ThoughtGraph
from researcher.graph.canonical import canonical
from researcher.protocols import Strategy
from researcher.strategies.prompts import parse_answer
from researcher.types import (
    Answer,
    Capabilities,
    Claim,
    FinishReason,
    Message,
    Outcome,
    Task,
    Usage,
    Verdict,
    VerdictStatus,
    Work,
)
from researcher.views import BudgetLeft, Plan, View

UNLIMITED = BudgetLeft(None, None, None, None, spendable=True, exhausted=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """How a simulated thread ends: its final message, after `seconds`, with claims, a verdict, a score and the state
    of the task that it came to, if any."""

    final: str = ""
    seconds: float = 1.0
    outcome: Outcome = Outcome.ANSWERED
    claims: tuple[Claim, ...] = ()
    verdict: Verdict | None = None
    detail: str = ""
    score: float | None = None
    state: str | None = None
    finish: FinishReason = FinishReason.STOP
    confidence: tuple[float, ...] = ()
    tokens: int = 0


@dataclass(slots=True)
class Simulation:
    """What happened: the plan that ended it, and the keys in the order they were started, ended and cancelled."""

    graph: ThoughtGraph
    events: list[Event] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    seconds: float = 0.0
    answer: Answer | None = None
    failure: str | None = None
    limited: bool = False
    most_at_once: int = 0
    plans: int = 0


def simulate(
    strategy: Strategy,
    task: Task,
    reply: Callable[[Work], Reply],
    *,
    slots: int = 10_000,
    seed: int = 0,
    budget: Callable[[Simulation], BudgetLeft] = lambda _: UNLIMITED,
    log: Sequence[Event] = (),
    state: Callable[[Sequence[str]], str | None] | None = None,
    capabilities: Capabilities = Capabilities(),
) -> Simulation:
    """Run the strategy to its answer or failure. Raises AssertionError if it stalls or overfills the slots.

    `log`: the beginning of a run that a crash cut short; its open threads are run anew. `state`: the task's state
    after some steps, as `View.state` has it; `capabilities`: those of the model that is simulated.
    """
    simulation = Simulation(ThoughtGraph.fold(log), events=list(log))
    running: dict[str, Work] = dict(simulation.graph.in_flight)
    queue: list[tuple[float, int, str, Reply]] = []
    memo: dict[str, Any] = {}
    for key, work in running.items():
        _enqueue(queue, simulation, key, reply(work))
    book = _Log(simulation)
    if not log:
        book.add(None, RunStarted(task=task, strategy=str(getattr(strategy, "name", "")), seed=seed))
    while True:
        simulation.plans += 1
        left = budget(simulation)
        view = View(
            task, simulation.graph, running, slots - len(running), left, seed, memo=memo, state=state,
            capabilities=capabilities,
        )  # fmt: skip
        plan = strategy.plan(view)
        _apply(plan, simulation, book, running, queue, reply)
        assert len(running) <= slots, "the strategy started more threads than there were free slots"
        if plan.answer is not None or plan.failure is not None:
            simulation.answer, simulation.failure = plan.answer, plan.failure
            simulation.limited = plan.limited
            return simulation
        while queue and queue[0][2] not in running:
            heapq.heappop(queue)
        assert queue, "the strategy stalled: nothing planned, nothing in flight"
        simulation.seconds, _, key, ending = heapq.heappop(queue)
        del running[key]
        simulation.ended.append(key)
        book.end(key, ending)


@dataclass(slots=True)
class _Log:
    simulation: Simulation

    def add(self, thread: str | None, body: EventBody) -> None:
        seq = self.simulation.graph.seq + 1
        event = Event(seq, thread, float(seq), body)
        self.simulation.graph.apply(event)
        self.simulation.events.append(event)

    def end(self, key: str, reply: Reply) -> None:
        if reply.final:
            self.add(
                key,
                MessageAdded(
                    message=Message(role="assistant", content=reply.final),
                    finish=reply.finish,
                    confidence=reply.confidence,
                    usage=Usage(completion_tokens=reply.tokens, calls=1),
                ),
            )
        for claim in reply.claims:
            self.add(key, ClaimAdded(claim=claim))
        if (answer := parse_answer(reply.final)) is not None:
            self.add(key, AnswerProposed(text=answer, canonical=canonical(answer)))
        if reply.verdict is not None:
            self.add(key, Scored(verdict=reply.verdict))
        if reply.state is not None:
            self.add(key, StateReached(state=reply.state))
        if reply.score is not None:
            verdict = Verdict(status=VerdictStatus.CORRECT, by="simulated", score=reply.score)
            self.add(key, Scored(verdict=verdict, guide=True))
        self.add(key, ThreadFinished(outcome=reply.outcome, detail=reply.detail))


def _enqueue(queue: list[tuple[float, int, str, Reply]], run: Simulation, key: str, ending: Reply) -> None:
    heapq.heappush(queue, (run.seconds + ending.seconds, run.graph.seq + len(queue), key, ending))


def _apply(
    plan: Plan,
    simulation: Simulation,
    book: _Log,
    running: dict[str, Work],
    queue: list[tuple[float, int, str, Reply]],
    reply: Callable[[Work], Reply],
) -> None:
    for key in plan.cancel:
        if running.pop(key, None) is not None:
            simulation.cancelled.append(key)
            book.add(key, ThreadFinished(outcome=Outcome.CANCELLED))
    for work in plan.start:
        assert simulation.graph.thread(work.key) is None, f"{work.key} was started twice"
        parent = simulation.graph.thread(work.parent) if work.parent else None
        assert not work.parent or (parent and parent.outcome), (
            f"{work.key} continues {work.parent}, which has not ended"
        )
        book.add(work.key, ThreadStarted(work=work))
        running[work.key] = work
        simulation.started.append(work.key)
        _enqueue(queue, simulation, work.key, reply(work))
    simulation.most_at_once = max(simulation.most_at_once, len(running))
