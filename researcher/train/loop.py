"""The loop: rollouts by the engine, rewards, a step, new weights under a new name, and again.

With `staleness` from 1 on the rollouts of the next iteration go on while the step of this one runs. New weights come
into use when both have ended, so which weights sampled what does not depend on who was faster.

Every iteration ends in a checkpoint of all that the next one depends on: weights, optimiser, the order of tasks, what
was sampled ahead, rollouts under way; the seeds of rollouts are functions of the iteration. A resume opens the weights
under the version they had, and lines of `metrics.jsonl` that no checkpoint followed are dropped, so that each iteration
is there once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from torch import nn

from researcher.errors import UserError
from researcher.train import checkpoint
from researcher.train.board import open_board
from researcher.train.diagnosis import Diagnosis, Finding
from researcher.train.gathering import Gathered, Gatherer
from researcher.train.journal import Journal
from researcher.train.publish.versioned import VersionedModel
from researcher.train.rollouts import Rollouts, solved
from researcher.train.sample import Sample
from researcher.train.settings import CHAIN, LoopConfig
from researcher.train.staleness import fresh, update_newest
from researcher.train.trainer import Metrics, Trainer
from researcher.types import Task

__all__ = ["Iteration", "Loop", "LoopConfig", "Publisher"]

First = TypeVar("First")
Second = TypeVar("Second")
Update = Callable[[Sequence[Sample]], list[Metrics]]


class Publisher(Protocol):
    """What brings weights to the rollouts' model."""

    async def publish(self, net: nn.Module, target: VersionedModel, version: str) -> float:
        """Switch the target to the weights of `net`; how far its canary moved. Raises CanaryFailed, UserError."""
        ...


@dataclass(frozen=True, slots=True)
class Iteration:
    """What an iteration came to; `findings` are for a person."""

    number: int
    metrics: Metrics
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    """Why the loop ended with it, where it did before its time."""


class Loop:
    """Runs a stage in `folder`, from its last checkpoint if there is one. `settings`: what rollouts record besides, the
    fingerprint of the `tokenizer`. `texts`: of a question, the documents it is about. Raises UserError for settings
    that do not go together."""

    def __init__(
        self,
        config: LoopConfig,
        trainer: Trainer,
        model: VersionedModel,
        publisher: Publisher,
        *,
        tasks: Sequence[Task],
        held_out: Sequence[Task] = (),
        folder: Path,
        update: Update | None = None,
        settings: Mapping[str, Any] | None = None,
        texts: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        config.refuse(tasks)
        if update is not None and config.bound:
            raise UserError("This stage learns by a rule of its own, which has no correction for older weights: leave "
                            "out partial, and set staleness to 0.")  # fmt: skip
        self.config, self.trainer, self.model, self.publisher = config, trainer, model, publisher
        self.update = update or self._learn
        self.held_out, self.folder = held_out, folder
        self.done, self.versions = 0, [model.version]
        """`versions`: the names of the weights, in the order of their use; the last one is in use."""
        self.ahead: Gathered | None = None
        """The samples of the next iteration, where they were made while the last one learned."""
        self.journal = Journal(folder / "metrics.jsonl", open_board(folder) if config.tensorboard else None)
        known: dict[str, Any] = {"settings": settings or {}, "texts": texts or {}}
        rollouts = Rollouts(model, folder / "rollouts", *config.rollout, **known)
        # An update of one's own may learn from a group whose rewards are all equal.
        self.gatherer = Gatherer(config, rollouts, tasks, by_group=update is None)
        alone = {**config.asked, "temperature": 0.0}
        self.greedy = Rollouts(model, folder / "evaluation", CHAIN, alone, **known)

    async def run(self, tell: Callable[[Iteration], None]) -> Iteration | None:
        """The last iteration; each is told as it ends. None where all were done before.

        What the weights that it begins with reach on the held-out tasks is told as iteration 0.
        """
        diagnosis = Diagnosis(self.config.diagnosis)
        await self._resume(diagnosis)
        if diagnosis.hopeless:
            return Iteration(self.done, {}, (), diagnosis.reason)
        if not self.done and self.held_out:
            first = Iteration(0, await self.evaluate())
            self._log(first)
            tell(first)
        last = None
        while self.done < self.config.iterations:
            metrics = await self.iterate()
            findings = diagnosis.see(metrics)
            last = Iteration(self.done, metrics, tuple(findings), diagnosis.reason if diagnosis.hopeless else "")
            self._log(last)
            await anyio.to_thread.run_sync(self._save)
            await self.gatherer.sweep()
            tell(last)
            if last.reason:
                break
        return last

    async def iterate(self) -> Metrics:
        """Rollouts, a step, new weights; its metrics."""
        began = time.monotonic()
        gathered, self.ahead = self.ahead or await self.gatherer.gather(self.done), None
        waited = time.monotonic() - began
        if self.config.staleness and self.done + 1 < self.config.iterations:
            learned, (self.ahead, rolled) = await _both(
                lambda: self._step(gathered.samples), lambda: _timed(self.gatherer.gather(self.done + 1))
            )
            lead = rolled - learned.get("seconds/steps", 0.0)
            times = {"seconds/rollouts": rolled + waited, "waited/step": waited + max(0.0, lead)}
            times["waited/rollouts"] = max(0.0, -lead)
        else:
            learned = await self._step(gathered.samples)
            times = {"seconds/rollouts": waited, "waited/step": waited}
            times["waited/rollouts"] = learned.get("seconds/steps", 0.0)
        moved = learned.pop("moved", 0.0)
        metrics = {**gathered.metrics, **learned, **times}
        if moved:
            metrics["canary"] = await self._publish(f"v{self.done + 1}")
        self.done += 1
        if self.held_out and (self.done % self.config.evaluate_every == 0 or self.done == self.config.iterations):
            metrics |= await self.evaluate()
        return metrics

    async def evaluate(self) -> Metrics:
        """Greedy accuracy on the held-out tasks, and the mean length of the replies."""
        groups = await self.greedy.gather(self.held_out, seed=0)
        lengths = [sample.sampled for group in groups for sample in group.samples]
        return {
            "held_out/greedy": solved(groups),
            "held_out/length": statistics.fmean(lengths) if lengths else 0.0,
        }

    async def _step(self, gathered: Sequence[Sample]) -> Metrics:
        """Learn, in a thread, from the samples that are not too old; `moved`: 1 where the weights did."""
        config = self.config
        masked = config.partial is not None and config.partial.older == "mask"
        samples, metrics = fresh(gathered, self.versions, config.bound, masked=masked)
        if len(samples) < config.trainer.minibatches:  # too few rollouts have ended, or none of them is fresh
            return metrics
        steps, seconds = await _timed(anyio.to_thread.run_sync(self.update, samples))
        metrics |= {name: statistics.fmean(step[name] for step in steps if name in step) for name in steps[-1]}
        metrics["seconds/steps"] = seconds
        metrics["moved"] = float(any(step["gradient"] > 0.0 for step in steps))
        return metrics

    def _learn(self, samples: Sequence[Sample]) -> list[Metrics]:
        partial = self.config.partial
        if partial is not None and partial.older == "mask":
            return update_newest(self.trainer, samples)
        return self.trainer.update(samples)

    async def _publish(self, version: str) -> float:
        """How far the canary moved. The model keeps its version where the change is too small to be published."""
        moved = await self.publisher.publish(self.trainer.policy.model, self.model, version)
        if self.model.version != self.versions[-1]:
            self.versions.append(self.model.version)
        return moved

    def _save(self) -> None:
        state = {
            "trainer": self.trainer.state(),
            "done": self.done,
            "versions": list(self.versions),
            "ahead": None if self.ahead is None else self.ahead.state(),
            **self.gatherer.state(),
        }
        checkpoint.save(self.folder / "checkpoints", self.done, state)

    async def _resume(self, diagnosis: Diagnosis) -> None:
        state = checkpoint.latest(self.folder / "checkpoints")
        if state is not None and not self.done:
            self.trainer.load_state(state["trainer"])
            self.gatherer.load_state(state)
            self.done = state["done"]
            self.ahead = None if state.get("ahead") is None else Gathered.of(state["ahead"])
            names = state.get("versions", [self.model.version, f"v{self.done}"])
            if self.trainer.steps and names[-1] != self.model.version:
                await self.publisher.publish(self.trainer.policy.model, self.model, names[-1])
            self.versions = names
        for line in await anyio.to_thread.run_sync(self.journal.resume, self.done):
            if line["iteration"]:
                diagnosis.see(line)

    def last(self) -> dict[str, Any]:
        """The metrics of the last iteration that was done."""
        return (self.journal.lines() or [{}])[-1]

    def _log(self, iteration: Iteration) -> None:
        self.journal.add(iteration.number, {**iteration.metrics, "findings": list(iteration.findings)})


async def _timed(made: Awaitable[First]) -> tuple[First, float]:
    """What comes of it, and after how many seconds."""
    began = time.monotonic()
    return await made, time.monotonic() - began


async def _both(first: Callable[[], Awaitable[First]], second: Callable[[], Awaitable[Second]]) -> tuple[First, Second]:
    """The results of two that go on at the same time. Raises the error of the first one that fails, as it is."""
    results: dict[int, Any] = {}
    errors: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def one(number: int, make: Callable[[], Awaitable[Any]]) -> None:
            try:
                results[number] = await make()
            except Exception as error:  # not in a group: whoever waits knows it by its type
                errors.append(error)
                group.cancel_scope.cancel()

        group.start_soon(one, 0, first)
        group.start_soon(one, 1, second)
    if errors:
        raise errors[0]
    return results[0], results[1]
