"""Stage `sft`: supervised fine-tuning on samples that stages before have left, or on a file that was given."""

from __future__ import annotations

from typing import Literal

import anyio.from_thread
import anyio.to_thread
from pydantic import Field

from researcher.errors import UserError
from researcher.train.sample import Sample
from researcher.train.sft import SFTConfig, fine_tune, read_examples
from researcher.train.stages.base import MODEL, Bench, Left, Stage
from researcher.train.trainer import Metrics
from researcher.train.weights import Weights, load_net, read_weights, save_net


class FineTuningStage(Stage, SFTConfig):
    """Cross-entropy on what was said. Leaves `model.gguf` and `metrics.jsonl`."""

    kind: Literal["sft"] = "sft"
    data: tuple[str, ...] = Field(min_length=1, description="stages whose samples to learn from; given: --data")
    first_steps: int | None = Field(default=None, ge=1, description="steps of the first round, instead of epochs")
    growth: float = Field(default=1.0, gt=0.0, description="by which the steps grow from round to round (STaR: 1.2)")

    @property
    def sources(self) -> tuple[str, ...]:
        """The data it learns from."""
        return self.data

    async def run(self, bench: Bench) -> Left:
        """All steps, from the last checkpoint on. Raises UserError where there is nothing to learn from."""
        return await anyio.to_thread.run_sync(self._run, bench)

    def _run(self, bench: Bench) -> Left:
        packed = read_weights(bench.model)
        examples = examples_of(bench, packed)
        net = load_net(packed)

        def tell(step: int, metrics: Metrics) -> None:
            if step == 1 or step % self.save_every == 0:
                anyio.from_thread.run_sync(bench.say, {"step": step, "loss": metrics["loss"]})

        steps = None if self.first_steps is None else round(self.first_steps * self.growth**bench.round)
        figures = fine_tune(net, examples, self, folder=bench.folder, seed=bench.seed, steps=steps, tell=tell)
        left = save_net(net, packed, bench.folder / MODEL)
        return Left(model=left.name, figures={"examples": float(len(examples)), **figures})


def examples_of(bench: Bench, packed: Weights) -> list[Sample]:
    """All examples of a stage's data. Raises UserError for a broken line, and where there is none to learn from."""
    examples: list[Sample] = []
    for path in bench.data.values():
        if path.stat().st_size:
            examples += read_examples(path, packed)
    if not examples:
        raise UserError("no example is left to learn from; sample more of them, or filter less.")
    return examples
