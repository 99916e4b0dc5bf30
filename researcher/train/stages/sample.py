"""Stage `sample`: rollouts of the recipe's tasks that are kept, right and wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
from pydantic import Field

from researcher.engine.preflight import check_calls
from researcher.strategies.load import load_strategy
from researcher.train.context import fingerprint_of
from researcher.train.files import read_samples, write_samples
from researcher.train.publish.served import open_sampler
from researcher.train.rollouts import Rollouts, rate_of
from researcher.train.sample import Sample
from researcher.train.stages.base import SAMPLES, Bench, Left, Stage
from researcher.train.weights import read_weights
from researcher.types import Task


class SamplingStage(Stage):
    """Samples of each task. Leaves `samples.jsonl`; the runs they are paths of are in `rollouts`."""

    kind: Literal["sample"] = "sample"
    group: int = Field(default=8, ge=1, description="samples of a task")
    tasks: int | None = Field(default=None, ge=1, description="how many of the recipe's tasks; None: all")
    by: Literal["student", "teacher"] = Field(default="student", description="teacher: the model of --teacher")
    strategy: str = "vote"
    params: dict[str, Any] = Field(default={"stop": "full", "temperature": 1.0}, description="of the strategy")
    chunk: int = Field(default=32, ge=1, description="tasks after which what was sampled is kept over a kill")

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher gives the samples."""
        return self.by == "teacher"

    def check(self) -> None:
        """The strategy is there, with these parameters."""
        load_strategy(self.strategy, self._params())

    def takes(self, tasks: Sequence[Task]) -> None:
        """The threads of the strategy can call the tools of the tasks."""
        for task in tasks[:1]:
            check_calls(self.strategy, load_strategy(self.strategy, self._params()), task)

    async def run(self, bench: Bench) -> Left:
        """The samples of all tasks, from the last chunk on."""
        found = await self.gather(bench, bench.tasks[: self.tasks])
        await anyio.to_thread.run_sync(write_samples, bench.folder / SAMPLES, found)
        return Left(samples=SAMPLES, figures=rates(found))

    async def gather(self, bench: Bench, tasks: Sequence[Task]) -> list[Sample]:
        """Samples of these tasks, in their order, chunk by chunk; a chunk that is on disk is not sampled again."""
        model = bench.model if self.by == "student" or bench.teacher is None else bench.teacher
        found: list[Sample] = []
        async with open_sampler(model, lambda text: bench.say({"server": text})) as endpoint:
            own = model == bench.model  # a teacher's file need not be one that can be trained
            settings = {"tokenizer": await anyio.to_thread.run_sync(tokenizer_of, model)} if own else {}
            known: dict[str, Any] = {"settings": settings, "texts": bench.texts}
            rollouts = Rollouts(endpoint, bench.folder / "rollouts", self.strategy, self._params(), **known)
            for start in range(0, len(tasks), self.chunk):
                path = bench.folder / "chunks" / f"{start:06d}.jsonl"
                if not path.exists():
                    groups = await rollouts.gather(tasks[start : start + self.chunk], self.seed(bench, start))
                    samples = [sample for group in groups for sample in group.samples]
                    await anyio.to_thread.run_sync(write_samples, path, samples)
                found += await anyio.to_thread.run_sync(read_samples, path)
                done = min(start + self.chunk, len(tasks))
                bench.say({"sampled": done, "of": len(tasks), "samples": len(found)})
        return found

    def _params(self) -> dict[str, Any]:
        return {"n": self.group, **self.params} if self.strategy == "vote" else dict(self.params)

    def seed(self, bench: Bench, start: int) -> int:
        """The seed of the task at `start`; the next ones count up from it."""
        return (bench.seed * 1_000_003 + start) % 2**31


def tokenizer_of(model: Path) -> str:
    """The fingerprint of a model's vocabulary and template, as runs record it."""
    weights = read_weights(model)
    return fingerprint_of(weights.tokenizer.get_vocab(), weights.chat_template)


def rates(samples: Sequence[Sample]) -> dict[str, float]:
    """How many samples there are, and which share was right, of those that were judged or gave no answer."""
    return {"samples": float(len(samples)), "right": rate_of(samples)}
