"""The loop: rollouts by the engine, rewards, a step, new weights under a new name, and again.

Every iteration ends in a checkpoint of all that the next one depends on: weights, optimiser, the order of tasks; the
seeds of rollouts are functions of the iteration. A resume opens the weights under the version they had, and lines of
`metrics.jsonl` that no checkpoint followed are dropped, so that each iteration is there once.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from researcher.train import checkpoint
from researcher.train.consensus import consensus_metrics
from researcher.train.diagnosis import Diagnosis, DiagnosisConfig, Finding
from researcher.train.journal import Journal
from researcher.train.publish.versioned import VersionedModel
from researcher.train.rewards import RewardConfig, weigh
from researcher.train.rollouts import Group, Rollouts, solved
from researcher.train.sample import Sample
from researcher.train.sampling import SamplingConfig, TaskSampler, informative
from researcher.train.trainer import Metrics, Trainer, TrainerConfig
from researcher.types import Task


class LoopConfig(BaseModel):
    """One stage of reinforcement learning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(default=100, ge=1)
    tasks: int = Field(default=16, ge=1, description="groups of an iteration")
    group: int = Field(default=16, ge=2, description="samples of a task")
    strategy: str = Field(default="vote", description="what makes the rollouts")
    params: dict[str, Any] = Field(default={"stop": "full", "temperature": 1.0}, description="parameters of it")
    trained: int | None = Field(default=None, ge=2, description="of a group, those a step is made of (TTRL: 32 of 64)")
    rewards: tuple[RewardConfig, ...] = (RewardConfig(name="accuracy"),)
    begins: dict[str, int] = Field(default={}, description="rewards that count from this iteration on (Kimi: length)")
    trainer: TrainerConfig = TrainerConfig()
    sampling: SamplingConfig = SamplingConfig()
    diagnosis: DiagnosisConfig = DiagnosisConfig()
    evaluate_every: int = Field(default=10, ge=1)
    seed: int = 0


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
    """Runs a stage in `folder`, from its last checkpoint if there is one."""

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
        update: Callable[[Sequence[Sample]], list[Metrics]] | None = None,
    ) -> None:
        # An update of one's own may learn from a group whose rewards are all equal.
        self.update, self._by_group = update or trainer.update, update is None
        self.config, self.trainer, self.model, self.publisher = config, trainer, model, publisher
        self.tasks, self.held_out, self.folder = tasks, held_out, folder
        self.sampler = TaskSampler(len(tasks), config.sampling, config.seed)
        self.done, self.journal = 0, Journal(folder / "metrics.jsonl")
        params = {"n": config.group, **config.params} if config.strategy == "vote" else dict(config.params)
        self.rollouts = Rollouts(model, folder / "rollouts", config.strategy, params)
        asked = params.get("over_params", {}) if params.get("over", "chain_of_thought") == "chain_of_thought" else {}
        self.greedy = Rollouts(model, folder / "evaluation", "chain_of_thought", {**asked, "temperature": 0.0})

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
            tell(last)
            if last.reason:
                break
        return last

    async def iterate(self) -> Metrics:
        """Rollouts, a step, new weights; its metrics."""
        began = time.monotonic()
        samples, metrics = await self._samples()
        metrics["seconds/rollouts"] = time.monotonic() - began
        if samples:
            began = time.monotonic()
            steps = await anyio.to_thread.run_sync(self.update, samples)
            metrics |= {name: statistics.fmean(step[name] for step in steps if name in step) for name in steps[-1]}
            metrics["seconds/steps"] = time.monotonic() - began
            version = f"v{self.done + 1}"
            if any(step["gradient"] > 0.0 for step in steps):
                metrics["canary"] = await self.publisher.publish(self.trainer.policy.model, self.model, version)
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

    async def _samples(self) -> tuple[list[Sample], Metrics]:
        """Weighed samples of as many informative groups as wanted, if the refills give them."""
        config = self.config
        kept: list[list[Sample]] = []
        seen: list[Sample] = []
        groups, useful, skipped = 0, 0, Counter[str]()
        for round_ in range(1 + config.sampling.refills):
            numbers = self.sampler.draw(config.tasks)
            found = await self.rollouts.gather([self.tasks[i] for i in numbers], self._seed(round_))
            for number, group in zip(numbers, found, strict=True):
                weighed = self._weighed(group, skipped)
                self.sampler.saw(number, solved([group]))
                groups += 1
                seen += weighed
                chosen = self._trained(weighed)
                useful_now = bool(chosen) and (informative(chosen) or not self._by_group)
                if chosen and (useful_now or config.sampling.keep == "all"):
                    useful += useful_now
                    kept.append(chosen)
            if len(kept) >= config.tasks:
                break
        samples = [sample for group_samples in kept[: config.tasks] for sample in group_samples]
        metrics: Metrics = {
            "groups": float(groups),
            "informative": useful / groups if groups else 0.0,
            "reward": statistics.fmean(s.reward for s in seen) if seen else 0.0,
            "length": statistics.fmean(s.sampled for s in seen) if seen else 0.0,
            "skipped": float(skipped.total()),
        }
        for term in self._rewards():
            values = [t.value for s in seen for t in s.terms if t.name == term.name]
            metrics[f"reward/{term.name}"] = statistics.fmean(values) if values else 0.0
        if any(term.name == "consensus" for term in config.rewards):
            metrics |= consensus_metrics(seen)
        return samples, metrics

    def _rewards(self) -> list[RewardConfig]:
        """The terms that count in this iteration."""
        begins = self.config.begins
        return [term for term in self.config.rewards if self.done >= begins.get(term.name, 0)]

    def _weighed(self, group: Group, skipped: Counter[str]) -> list[Sample]:
        skipped.update(group.skipped)
        weighed = [sample for sample in weigh(group.samples, self._rewards()) if sample is not None]
        skipped["a reward had no word on it"] += len(group.samples) - len(weighed)
        return weighed

    def _trained(self, group: list[Sample]) -> list[Sample]:
        """Those of a group that a step is made of, drawn by chance: all have voted, fewer are learned from."""
        wanted = self.config.trained
        if wanted is None or wanted >= len(group):
            return group
        rng = np.random.default_rng((self.config.seed, self.done, zlib.crc32(group[0].run.encode())))
        return [group[i] for i in sorted(rng.choice(len(group), wanted, replace=False).tolist())]

    def _seed(self, round_: int) -> int:
        return (self.config.seed * 1_000_003 + self.done * 10_007 + round_ * 101) % 2**31

    def _save(self) -> None:
        state = {"trainer": self.trainer.state(), "sampler": self.sampler.state(), "done": self.done}
        checkpoint.save(self.folder / "checkpoints", self.done, state)

    async def _resume(self, diagnosis: Diagnosis) -> None:
        state = checkpoint.latest(self.folder / "checkpoints")
        if state is not None and not self.done:
            self.trainer.load_state(state["trainer"])
            self.sampler.load_state(state["sampler"])
            self.done = state["done"]
            if self.trainer.steps:
                await self.publisher.publish(self.trainer.policy.model, self.model, f"v{self.done}")
        for line in await anyio.to_thread.run_sync(self.journal.resume, self.done):
            if line["iteration"]:
                diagnosis.see(line)

    def last(self) -> dict[str, Any]:
        """The metrics of the last iteration that was done."""
        return (self.journal.lines() or [{}])[-1]

    def _log(self, iteration: Iteration) -> None:
        self.journal.add(iteration.number, {**iteration.metrics, "findings": list(iteration.findings)})
