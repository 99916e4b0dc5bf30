"""Rollouts by the engine that research uses: the same strategies, tools, verifiers and logs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import anyio
from researcher_tools import Documents

from researcher.engine.orchestrator import Orchestrator
from researcher.engine.run import Run
from researcher.errors import ResearcherError
from researcher.protocols import Model
from researcher.store import RunReader, RunStore, run_path
from researcher.strategies.load import load_strategy
from researcher.strategies.partial import Partial
from researcher.train.partial import Flight, copy_run, ended
from researcher.train.paths import paths_of
from researcher.train.rewards.rules import Accuracy
from researcher.train.sample import Sample
from researcher.types import Outcome, Task

Found = TypeVar("Found")


class Group(NamedTuple):
    """The siblings on one task; `skipped` says why threads gave no sample, `failure` why the run failed."""

    task: Task
    run: str
    samples: tuple[Sample, ...]
    skipped: Counter[str]
    failure: str = ""


class Landed(NamedTuple):
    """A group made in pieces whose rollouts have all ended: the number of its task, how many pieces it took, and how
    many of its rollouts were stopped because they repeated themselves."""

    task: int
    group: Group
    pieces: int
    repeating: int


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Runs tasks on a model and reads their paths. Runs are kept in `home`, like any other, and can be shown, replayed
    and trained on again."""

    model: Model
    home: Path
    strategy: str = "vote"
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else the Orchestrator takes: documents, tools, a sandbox."""
    at_once: int = 8
    """Tasks under way at the same time."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the first event of each run records besides, such as the fingerprint of the model's `tokenizer`."""
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of a question, the documents that its runs can search, by file name."""

    async def gather(self, tasks: Sequence[Task], seed: int) -> list[Group]:
        """A group for each task, in their order. Raises what broke a run; a thread that failed is only no sample, but
        ResearcherError where there is none at all."""

        async def one(orchestrator: Orchestrator, index: int) -> Group:
            run = await self._start(orchestrator, tasks[index], self.params, seed + index)
            return await self._group(run, tasks[index])

        groups = await self._all(one, tasks)
        _refuse_silence(groups)
        return groups

    async def advance(
        self, under_way: Sequence[tuple[Flight, Task]], fresh: Sequence[tuple[int, Task]], seed: int
    ) -> list[Landed | Flight]:
        """One piece more for each rollout of the groups under way, and the first of the `fresh` ones, which come with
        the numbers of their tasks; in this order, each as a group where all its rollouts have ended, else as where
        it stands now. Only for the strategy `partial`. Raises what broke a run."""

        async def one(orchestrator: Orchestrator, index: int) -> Landed | Flight:
            if index < len(under_way):
                flight, task = under_way[index]
                number, pieces = flight.task, flight.pieces
                params = {**self.params, "pieces": pieces + 1}
                run = await orchestrator.resume(await copy_run(self.home, flight, params))
                await run.result()
            else:
                number, task = fresh[index - len(under_way)]
                pieces = 0
                params = {**self.params, "pieces": 1}
                run = await self._start(orchestrator, task, params, seed + index)
            strategy = load_strategy(self.strategy, params)
            assert isinstance(strategy, Partial)
            if strategy.waiting(run.graph):
                return Flight(number, run.id, run.graph.seq, pieces + 1)
            group = await self._group(run, task)
            done = group._replace(samples=tuple([ended(sample) for sample in group.samples]))
            return Landed(number, done, pieces + 1, strategy.repeating(run.graph))

        found = await self._all(one, [task for _, task in (*under_way, *fresh)])
        _refuse_silence([each.group for each in found if isinstance(each, Landed)])
        return found

    async def _all(self, one: Callable[[Orchestrator, int], Awaitable[Found]], tasks: Sequence[Task]) -> list[Found]:
        """What `one` finds for the number of each task, so many at once."""
        found: dict[int, Found] = {}
        places = anyio.CapacityLimiter(self.at_once)
        async with self._orchestrator({}) as shared:

            async def placed(index: int) -> None:
                async with places:
                    if texts := self.texts.get(tasks[index].question):
                        with closing(Documents.from_texts(texts)) as documents:
                            async with self._orchestrator({"documents": documents}) as own:
                                found[index] = await one(own, index)
                    else:
                        found[index] = await one(shared, index)

            async with anyio.create_task_group() as started:
                for index in range(len(tasks)):
                    started.start_soon(placed, index)
        return [found[index] for index in sorted(found)]

    def _orchestrator(self, more: Mapping[str, Any]) -> Orchestrator:
        return Orchestrator(self.model, home=self.home, store=_store, **{**self.options, **more})

    async def _start(self, orchestrator: Orchestrator, task: Task, params: Mapping[str, Any], seed: int) -> Run:
        run = await orchestrator.start(task, strategy=self.strategy, params=params, seed=seed, settings=self.settings)
        await run.result()
        return run

    async def _group(self, run: Run, task: Task) -> Group:
        result = await run.result()
        with RunReader(run_path(self.home, run.id)) as reader:
            found = paths_of(reader.read(), run.id)
        failure = result.detail if result.outcome is Outcome.FAILED else ""
        return Group(task, run.id, found.samples, found.skipped, failure)


def _refuse_silence(groups: Sequence[Group]) -> None:
    """Not one sample, because runs failed: the model server is gone. Were it to count as nothing right, training would
    go on to its end without learning."""
    failures = [group.failure for group in groups if group.failure]
    if failures and not any(group.samples for group in groups):
        raise ResearcherError(f"no rollout of {len(groups)} tasks gave a sample; the last run failed: {failures[-1]}")


def _store(path: Path) -> RunStore:
    # Without a sync at each commit: a run that a power failure cuts short is only one rollout less.
    return RunStore.create(path, synchronous="normal")


def solved(groups: Sequence[Group]) -> float:
    """The share of samples that were right, of those that were judged or gave no answer; 0 where there is none."""
    return rate_of([sample for group in groups for sample in group.samples])


def rate_of(samples: Sequence[Sample]) -> float:
    """The same for samples."""
    values = [value for value in Accuracy()(samples) if value is not None]
    return statistics.fmean(values) if values else 0.0
