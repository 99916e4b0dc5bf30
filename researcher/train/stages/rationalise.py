"""Stage `rationalise`: where no sample of a task was right, a reason for the right answer, which is given as a hint.

STaR (Zelikman et al. 2022): the hint is taken off again, so that what is learned from is the plain question with the
reason that the hint led to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import anyio.to_thread
import msgspec
from pydantic import Field

from researcher.train.files import read_samples, write_samples
from researcher.train.paths import task_id
from researcher.train.sample import Sample
from researcher.train.stages.base import SAMPLES, Bench, Left, refuse_tools
from researcher.train.stages.sample import SamplingStage
from researcher.types import Task, VerdictStatus

HINT = "{question} (The answer is {gold}.)"


class RationaliseStage(SamplingStage):
    """Right samples for tasks that `data` solved none of. Leaves `samples.jsonl`: those whose answer is right."""

    kind: Literal["rationalise"] = "rationalise"  # type: ignore[assignment]
    data: str = Field(description="the stage whose failures are looked at")
    hint: str = Field(default=HINT, description="how the question is asked with its answer")
    group: int = Field(default=1, ge=1)
    params: dict[str, Any] = Field(default={"stop": "full", "temperature": 1.0}, description="of the strategy")

    @property
    def sources(self) -> tuple[str, ...]:
        """The samples whose failures it looks at."""
        return (self.data,)

    def takes(self, tasks: Sequence[Task]) -> None:
        """Tasks without tools: what was said in several turns under a hint is not learned from."""
        refuse_tools(tasks, "A reason for an answer that was told is one turn, without tool calls")

    async def run(self, bench: Bench) -> Left:
        """Samples with the hint, without it."""
        before = await anyio.to_thread.run_sync(read_samples, bench.data[self.data])
        failed = self.failed(before, bench)
        hinted = [self.hinted(task) for task, _ in failed]
        plain = {task_id(asked): sample for asked, (_, sample) in zip(hinted, failed, strict=True)}
        found = await self.gather(bench, hinted)
        right = [sample for sample in found if sample.verdict is VerdictStatus.CORRECT]
        kept = [made for sample in right if (made := unhinted(sample, plain[sample.task])) is not None]
        await anyio.to_thread.run_sync(write_samples, bench.folder / SAMPLES, kept)
        return Left(samples=SAMPLES, figures={"failed": float(len(failed)), "kept": float(len(kept))})

    def failed(self, samples: list[Sample], bench: Bench) -> list[tuple[Task, Sample]]:
        """The tasks that were tried, never solved, and whose answer is known, with one try of each."""
        tries = {sample.task: sample for sample in reversed(samples)}
        solved = {sample.task for sample in samples if sample.verdict is VerdictStatus.CORRECT}
        return [
            (task, tries[name])
            for task in bench.tasks
            if task.gold is not None and (name := task_id(task)) in tries and name not in solved
        ]

    def hinted(self, task: Task) -> Task:
        """The task asked with its answer."""
        return msgspec.structs.replace(task, question=self.hint.format(question=task.question, gold=task.gold))


def unhinted(sample: Sample, plain: Sample) -> Sample | None:
    """What `sample` said, as if it had been asked what `plain` was asked; None where it said it in several turns.

    The ids of the question are those that the server gave for `plain`: nothing is tokenised again. The logprobs are of
    another context, so they are left out.
    """
    start, asked = sample.mask.index(True), plain.mask.index(True)
    if not all(sample.mask[start:]):
        return None
    ids = plain.ids[:asked] + sample.ids[start:]
    mask = (False,) * asked + (True,) * (len(sample.ids) - start)
    return msgspec.structs.replace(sample, task=plain.task, ids=ids, mask=mask, logprobs=(), nodes=(), versions=())
