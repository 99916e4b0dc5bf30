"""Runs a strategy without an engine: threads end at simulated times, in simulated slots, with answers you decide.

Strategies are pure, so this is all they need; thousands of runs take seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from researcher.events import (
    AnswerProposed,
    ClaimAdded,
    Event,
    EventBody,
    MessageAdded,
    RunStarted,
    Scored,
    ThreadFinished,
    ThreadStarted,
)
from researcher.graph import ThoughtGraph
from researcher.graph.canonical import canonical
from researcher.protocols import BudgetLeft, Plan, Strategy, View
from researcher.strategies.prompts import parse_answer
from researcher.types import Answer, Claim, Message, Outcome, Task, Verdict, Work

UNLIMITED = BudgetLeft(None, None, None, None, spendable=True, exhausted=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """How a simulated thread ends: its final message, after `seconds`, with claims and a verdict if any."""

    final: str = ""
    seconds: float = 1.0
    outcome: Outcome = Outcome.ANSWERED
    claims: tuple[Claim, ...] = ()
    verdict: Verdict | None = None
    detail: str = ""


@dataclass(slots=True)
class Simulation:
    """What happened: the plan that ended it, and the keys in the order they were started, ended and cancelled."""

    graph: ThoughtGraph
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    seconds: float = 0.0
    answer: Answer | None = None
    failure: str | None = None
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
) -> Simulation:
    """Run the strategy to its answer or failure. Raises AssertionError if it stalls or overfills the slots."""
    simulation = Simulation(ThoughtGraph())
    log = _Log(simulation.graph)
    log.add(None, RunStarted(task=task, strategy=str(getattr(strategy, "name", "")), seed=seed))
    running: dict[str, Work] = {}
    queue: list[tuple[float, int, str, Reply]] = []
    while True:
        simulation.plans += 1
        view = View(task, simulation.graph, dict(running), slots - len(running), budget(simulation), seed)
        plan = strategy.plan(view)
        _apply(plan, simulation, log, running, queue, reply)
        assert len(running) <= slots, "the strategy started more threads than there were free slots"
        if plan.answer is not None or plan.failure is not None:
            simulation.answer, simulation.failure = plan.answer, plan.failure
            return simulation
        while queue and queue[0][2] not in running:
            heapq.heappop(queue)
        assert queue, "the strategy stalled: nothing planned, nothing in flight"
        simulation.seconds, _, key, ending = heapq.heappop(queue)
        del running[key]
        simulation.ended.append(key)
        log.end(key, ending)


@dataclass(slots=True)
class _Log:
    graph: ThoughtGraph
    seq: int = 0

    def add(self, thread: str | None, body: EventBody) -> None:
        self.seq += 1
        self.graph.apply(Event(self.seq, thread, float(self.seq), body))

    def end(self, key: str, reply: Reply) -> None:
        if reply.final:
            self.add(key, MessageAdded(message=Message(role="assistant", content=reply.final)))
        for claim in reply.claims:
            self.add(key, ClaimAdded(claim=claim))
        if (answer := parse_answer(reply.final)) is not None:
            self.add(key, AnswerProposed(text=answer, canonical=canonical(answer)))
        if reply.verdict is not None:
            self.add(key, Scored(verdict=reply.verdict))
        self.add(key, ThreadFinished(outcome=reply.outcome, detail=reply.detail))


def _apply(
    plan: Plan,
    simulation: Simulation,
    log: _Log,
    running: dict[str, Work],
    queue: list[tuple[float, int, str, Reply]],
    reply: Callable[[Work], Reply],
) -> None:
    for key in plan.cancel:
        if running.pop(key, None) is not None:
            simulation.cancelled.append(key)
            log.add(key, ThreadFinished(outcome=Outcome.CANCELLED))
    for work in plan.start:
        assert simulation.graph.thread(work.key) is None, f"{work.key} was started twice"
        log.add(work.key, ThreadStarted(work=work))
        running[work.key] = work
        simulation.started.append(work.key)
        ending = reply(work)
        heapq.heappush(queue, (simulation.seconds + ending.seconds, log.seq, work.key, ending))
    simulation.most_at_once = max(simulation.most_at_once, len(running))
