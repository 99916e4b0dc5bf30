"""Thoughts on their way through a plan of operations, as a fold of the graph.

A thought travels in a lane. An operation on single thoughts takes each as soon as it comes; only `keep_best` and
`aggregate` wait for all lanes. Lanes that bring equal answers to an operation share its one thread and its result: that
is where thoughts merge.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from researcher.strategies.base import seed_of
from researcher.strategies.operations import (
    Aggregate,
    Improve,
    KeepBest,
    KeepValid,
    Operation,
    Score,
    ValidateAndImprove,
    widths,
)
from researcher.strategies.revision import is_right
from researcher.views import ThreadInfo, View

Thought = ThreadInfo | None
"""A thread with an answer; None where the lane has ended without one."""


class Judge(NamedTuple):
    """What is known of a thought: its score, None where nobody could give one, and whether it is right."""

    value: Callable[[ThreadInfo], float | None]
    valid: Callable[[ThreadInfo], bool]


class Job:
    """The thread, or one try after the other, that an operation has for the lanes that share it, and what it reads.

    `place`, the first of its lanes, is part of its threads' keys; it is settled when the first thread has begun.
    """

    __slots__ = ("begun", "done", "lanes", "number", "place", "reads", "thought", "tries")

    def __init__(self, number: int, place: int, reads: tuple[ThreadInfo, ...], *, begun: bool = False) -> None:
        self.number, self.place, self.reads, self.begun = number, place, reads, begun
        self.lanes: list[int] = []
        self.tries = 0
        self.thought: Thought = None
        self.done = False

    @property
    def key(self) -> tuple[int, int, int]:
        """Operation, place and try of the thread it is about."""
        return self.number, self.place, self.tries


class Thoughts:
    """The lanes: `at[operation][lane]` is what came out there. `wanted`: the jobs that want a thread, in no order.

    `right`: the threads that the task's verifier found right. A thread's key is `name/operation/place/try`.
    """

    def __init__(self, name: str, operations: Sequence[Operation], judge: Judge, seed: int) -> None:
        self.operations, self.widths, self.seq = operations, widths(operations), 0
        self.at: list[dict[int, Thought]] = [{} for _ in operations]
        self.wanted: set[Job] = set()
        self.right: list[ThreadInfo] = []
        self._name, self._judge, self._seed = name, judge, seed
        self._threads: dict[tuple[int, int, int], ThreadInfo] = {}
        self._jobs: dict[tuple[int, int | str], Job] = {}
        self._sources: dict[tuple[int, str], tuple[int, ThreadInfo]] = {}
        self._answers: dict[tuple[int, int], str] = {}
        for lane in range(self.widths[0]):
            self._own_job(0, lane, ())

    @classmethod
    def of(cls, view: View, name: str, operations: Sequence[Operation], judge: Judge) -> Thoughts:
        """The thoughts of the view's graph, kept in its memo under `name`."""
        known = view.memo.get(name)
        if not isinstance(known, cls):
            known = view.memo[name] = cls(name, operations, judge, view.seed)
        changed = [info for info in view.graph.changes(known.seq) if info.key.startswith(f"{name}/")]
        jobs = [known._see(view, info) for info in changed]  # all, before any lane moves on to what has begun
        for number, identity in jobs:
            if (job := known._jobs.get((number, identity))) is not None:
                known._advance(job)
        known.seq = view.graph.seq
        return known

    def _see(self, view: View, info: ThreadInfo) -> tuple[int, int | str]:
        """Note a thread, and say which job it belongs to."""
        number, place, tries = (int(part) for part in info.key.split("/")[1:])
        self._threads[number, place, tries] = info
        if is_right(info):
            self.right.append(info)
        if not isinstance(self.operations[number], Improve | ValidateAndImprove):
            return number, place
        if tries == 0 and (source := view.graph.thread(info.work.uses[0])) and source.canonical is not None:
            self._answers[number, place] = source.canonical
            self._sources[number, source.canonical] = place, source
            if (job := self._jobs.get((number, source.canonical))) is not None:
                job.begun = True
        return number, self._answers.get((number, place), place)

    def _advance(self, job: Job) -> None:
        """Take in what the job's threads came to; it wants the next, or its lanes move on."""
        while not job.done:
            thread = self._threads.get(job.key)
            if thread is None:
                self.wanted.add(job)
                return
            self.wanted.discard(job)
            if thread.outcome is None:
                return
            job.thought = self._outcome(job, thread)
            if self._goes_on(job):
                job.tries += 1
                continue
            job.done = True
            for lane in job.lanes:
                self._leave(job.number, lane, job.thought)

    def _outcome(self, job: Job, thread: ThreadInfo) -> Thought:
        """The thread's thought; where it has none, the one that it was to improve, if it was."""
        if thread.answer is not None:
            return thread
        return job.reads[0] if isinstance(self.operations[job.number], Improve | ValidateAndImprove) else None

    def _goes_on(self, job: Job) -> bool:
        """Whether the thought is to be improved once more."""
        operation = self.operations[job.number]
        if not isinstance(operation, ValidateAndImprove) or job.thought is None or self._judge.valid(job.thought):
            return False
        job.reads = (job.thought,)
        return job.tries + 1 < operation.rounds

    def _leave(self, number: int, lane: int, thought: Thought) -> None:
        """A lane has passed an operation, and comes to the next."""
        self.at[number][lane] = thought
        if number + 1 < len(self.operations):
            self._enter(number + 1, lane, thought)

    def _enter(self, number: int, lane: int, thought: Thought) -> None:
        match self.operations[number]:
            case KeepBest() | Aggregate() as operation:
                if len(self.at[number - 1]) == self.widths[number - 1]:
                    self._gather(number, operation)
            case _ if thought is None:
                self._leave(number, lane, None)
            case Score():
                self._leave(number, lane, thought if self._judge.value(thought) is not None else None)
            case KeepValid():
                self._leave(number, lane, thought if self._judge.valid(thought) else None)
            case ValidateAndImprove() if self._judge.valid(thought):
                self._leave(number, lane, thought)
            case _:
                self._share(number, lane, thought)

    def _share(self, number: int, lane: int, thought: ThreadInfo) -> None:
        """Have a thought revised, together with all that say the same."""
        assert thought.canonical is not None
        identity = number, thought.canonical
        job = self._jobs.get(identity)
        if job is None:
            place, source = self._sources.get(identity, (lane, thought))
            job = self._jobs[identity] = Job(number, place, (source,), begun=identity in self._sources)
        elif not job.begun and lane < job.place:
            job.place, job.reads = lane, (thought,)
        job.lanes.append(lane)
        if job.done:
            self._leave(number, lane, job.thought)
        else:
            self._advance(job)

    def _own_job(self, number: int, lane: int, reads: tuple[ThreadInfo, ...]) -> None:
        job = self._jobs[number, lane] = Job(number, lane, reads, begun=True)
        job.lanes.append(lane)
        self._advance(job)

    def _gather(self, number: int, operation: KeepBest | Aggregate) -> None:
        """All lanes are there: keep the best answers, or make new ones of all."""
        found = sorted((t for t in self.at[number - 1].values() if t is not None), key=self._rank)
        merged: dict[str | None, ThreadInfo] = {}
        for thought in found:
            merged.setdefault(thought.canonical, thought)
        if isinstance(operation, KeepBest):
            kept = dict(list(merged.items())[: operation.n])
            for lane, before in self.at[number - 1].items():
                self._leave(number, lane, None if before is None else kept.get(before.canonical))
            return
        for lane in range(operation.n):
            if merged:
                self._own_job(number, lane, self._draw(number, lane, operation.of, tuple(merged.values())))
            else:
                self._leave(number, lane, None)

    def _rank(self, thought: ThreadInfo) -> tuple[float, int]:
        """The highest score first; of equal ones the first submitted."""
        return -(self._judge.value(thought) or 0.0), thought.order

    def _draw(self, number: int, lane: int, count: int | None, found: tuple[ThreadInfo, ...]) -> tuple[ThreadInfo, ...]:
        if count is None or count >= len(found):
            return found
        rng = random.Random(seed_of(self._seed, f"{self._name}/{number}/{lane} reads"))
        return tuple(rng.sample(found, count))
