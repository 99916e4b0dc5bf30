"""The samples of an iteration: which tasks, their rollouts, rewards, and which groups are worth a step.

`Gatherer.gather(k)` depends on k and on the gatherer's state alone, so it may run while another iteration learns, and
goes on exactly from a checkpoint.
"""

from __future__ import annotations

import statistics
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec
import numpy as np

from researcher.train.consensus import consensus_metrics
from researcher.train.partial import Flight, remove_runs
from researcher.train.rewards import RewardConfig, weigh
from researcher.train.rewards.rules import Accuracy
from researcher.train.rollouts import Group, Landed, Rollouts, solved
from researcher.train.sample import Sample
from researcher.train.sampling import TaskSampler, informative
from researcher.train.settings import LoopConfig
from researcher.train.trainer import Metrics
from researcher.types import Task


class Gathered(NamedTuple):
    """Weighed samples for a step, none where there is nothing to learn from, and the figures of their iteration."""

    samples: list[Sample]
    metrics: Metrics

    def state(self) -> dict[str, Any]:
        """Plain values; floats come back as they are."""
        return {"samples": msgspec.json.encode(self.samples).decode(), "metrics": dict(self.metrics)}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Gathered:
        """What was kept."""
        return cls(msgspec.json.decode(state["samples"], type=list[Sample]), state["metrics"])


@dataclass(slots=True)
class _Iteration:
    """What an iteration came to as far as it went."""

    number: int
    kept: list[list[Sample]]
    seen: list[Sample]
    skipped: Counter[str]
    groups: int = 0
    useful: int = 0
    judged: int = 0
    solved: int = 0


class Gatherer:
    """Makes rollouts of `tasks`. `by_group`: a group whose rewards are all equal says nothing."""

    def __init__(self, config: LoopConfig, rollouts: Rollouts, tasks: Sequence[Task], *, by_group: bool = True) -> None:
        self._config, self._rollouts, self._tasks, self._by_group = config, rollouts, tasks, by_group
        self._sampler = TaskSampler(len(tasks), config.sampling, config.seed)
        self.flights: list[Flight] = []
        """The groups under way, the oldest first."""
        self._left: list[list[str]] = [[], []]
        """Runs that others have gone on from, of this iteration and the one before: one checkpoint each names them."""

    async def gather(self, number: int) -> Gathered:
        """The samples of iteration `number`, counted from 0: of as many informative groups as wanted, if the refills
        give them. With partial rollouts those of the groups that have ended; an iteration's output is fixed then, and
        nothing is refilled."""
        now = _Iteration(number, [], [], Counter())
        more = await self._pieces(now) if self._config.partial is not None else await self._rounds(now)
        return self._gathered(now, more)

    def state(self) -> dict[str, Any]:
        """Plain values by which `load_state` goes on."""
        flights = [list(flight) for flight in self.flights]
        return {"sampler": self._sampler.state(), "flights": flights, "left": [list(each) for each in self._left]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises ValueError where it is of another number of tasks."""
        self._sampler.load_state(state["sampler"])
        self.flights = [Flight(*each) for each in state.get("flights", ())]
        self._left = [list(each) for each in state.get("left", ([], []))]

    async def sweep(self) -> None:
        """Remove the runs that no kept checkpoint names any more; to be called after each checkpoint."""
        await anyio.to_thread.run_sync(remove_runs, self._rollouts.home, self._left[0])
        self._left = [self._left[1], []]

    async def _rounds(self, now: _Iteration) -> Metrics:
        config = self._config
        for round_ in range(1 + config.sampling.refills):
            numbers = self._sampler.draw(config.tasks)
            found = await self._rollouts.gather([self._tasks[i] for i in numbers], self._seed(now.number, round_))
            for task, group in zip(numbers, found, strict=True):
                self._take(now, task, group)
            if len(now.kept) >= config.tasks:
                break
        return {}

    async def _pieces(self, now: _Iteration) -> Metrics:
        drawn = self._sampler.draw(max(0, self._config.tasks - len(self.flights)))
        found = await self._rollouts.advance(
            [(flight, self._tasks[flight.task]) for flight in self.flights],
            [(number, self._tasks[number]) for number in drawn],
            self._seed(now.number, 0),
        )
        self._left[1] += [flight.run for flight in self.flights]
        self.flights = [each for each in found if isinstance(each, Flight)]
        landed = [each for each in found if isinstance(each, Landed)]
        for each in landed:
            self._take(now, each.task, each.group)
        metrics = {
            "partial/under_way": float(len(self.flights)),
            "partial/repeating": float(sum(each.repeating for each in landed)),
        }
        return metrics | ({"partial/pieces": statistics.fmean(each.pieces for each in landed)} if landed else {})

    def _take(self, now: _Iteration, task: int, group: Group) -> None:
        weighed = self._weighed(now, group)
        self._sampler.saw(task, solved([group]))
        now.groups += 1
        right = [value for value in Accuracy()(group.samples) if value is not None]
        now.judged += bool(right)
        now.solved += any(right)
        now.seen += weighed
        chosen = self._trained(now, weighed)
        useful = bool(chosen) and (informative(chosen) or not self._by_group)
        if chosen and (useful or self._config.sampling.keep == "all"):
            now.useful += useful
            now.kept.append(chosen)

    def _gathered(self, now: _Iteration, more: Metrics) -> Gathered:
        config, seen = self._config, now.seen
        metrics: Metrics = {"groups": float(now.groups), "skipped": float(now.skipped.total()), **more}
        if not now.groups:  # all are under way: nothing is known of them yet
            return Gathered([], metrics)
        metrics |= {
            "informative": now.useful / now.groups,
            "reward": statistics.fmean(s.reward for s in seen) if seen else 0.0,
            "length": statistics.fmean(s.sampled for s in seen) if seen else 0.0,
        }
        # Beside the share of samples that are right, that of tasks where one of the group is: a policy that is only
        # sharpened raises the first and lowers the second.
        if now.judged:
            metrics["any_right"] = now.solved / now.judged
        for term in self._rewards(now.number):
            values = [t.value for s in seen for t in s.terms if t.name == term.name]
            metrics[f"reward/{term.name}"] = statistics.fmean(values) if values else 0.0
        if any(term.name == "consensus" for term in config.rewards):
            metrics |= consensus_metrics(seen)
        return Gathered([sample for group in now.kept[: config.tasks] for sample in group], metrics)

    def _rewards(self, number: int) -> list[RewardConfig]:
        """The terms that count in this iteration."""
        begins = self._config.begins
        return [term for term in self._config.rewards if number >= begins.get(term.name, 0)]

    def _weighed(self, now: _Iteration, group: Group) -> list[Sample]:
        now.skipped.update(group.skipped)
        weighed = [sample for sample in weigh(group.samples, self._rewards(now.number)) if sample is not None]
        now.skipped["a reward had no word on it"] += len(group.samples) - len(weighed)
        return weighed

    def _trained(self, now: _Iteration, group: list[Sample]) -> list[Sample]:
        """Those of a group that a step is made of, drawn by chance: all have voted, fewer are learned from."""
        wanted = self._config.trained
        if wanted is None or wanted >= len(group):
            return group
        # By the group's place and not by its run's name, which is another one after a resume.
        rng = np.random.default_rng((self._config.seed, now.number, now.groups, zlib.crc32(group[0].task.encode())))
        return [group[i] for i in sorted(rng.choice(len(group), wanted, replace=False).tolist())]

    def _seed(self, number: int, round_: int) -> int:
        return (self._config.seed * 1_000_003 + number * 10_007 + round_ * 101) % 2**31
