"""Stage `topk`: what a teacher holds likely at each token of given traces, learned by forward KL.

A trace says one token at each place; a teacher says how likely others were too, so that a token teaches more than with
cross-entropy alone (Hinton et al. 2015; Kim & Rush 2016).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anyio.from_thread
import anyio.to_thread
from pydantic import Field

from researcher.errors import UserError
from researcher.models.uri import KEY
from researcher.train.batch import Batch
from researcher.train.losses import LossConfig
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample
from researcher.train.sft import SFTConfig, fine_tune
from researcher.train.stages.base import MODEL, Bench, Left, Stage
from researcher.train.stages.sft import examples_of
from researcher.train.teacher import (
    LocalTeacher,
    Target,
    Teacher,
    open_weights,
    read_targets,
    teacher_kl,
    topk_batch,
    write_targets,
)
from researcher.train.teacher_server import open_server
from researcher.train.topk import Tail
from researcher.train.trainer import Metrics
from researcher.train.weights import Weights, load_net, read_weights, save_net


class TopKStage(Stage, SFTConfig):
    """Forward KL to a teacher's most likely tokens. Leaves `model.gguf`, `metrics.jsonl`, and what the teacher said in
    `targets`; its figures are the KL on held-out traces before and after, nats a token."""

    kind: Literal["topk"] = "topk"
    data: tuple[str, ...] = Field(min_length=1, description="stages whose traces to learn from; given: --data")
    teacher: str = Field(default="", description="http://host/v1#name of a vLLM server, or a folder of transformers")
    k: int = Field(default=16, ge=1, description="tokens of a place (vLLM tells 20, or its --max-logprobs)")
    temperature: float = Field(default=1.0, gt=0.0, description="by which both sides' logits are divided")
    tail: Tail = Field(default="bucket", description="what becomes of the teacher's other tokens: see topk.py")
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of the traces' tasks that are not learned")
    chunk: int = Field(default=64, ge=1, description="traces after which what the teacher said is kept over a kill")

    @property
    def sources(self) -> tuple[str, ...]:
        """The traces it learns from."""
        return self.data

    @property
    def needs_teacher(self) -> bool:
        """Whether it is that of --teacher."""
        return not self.teacher

    def check(self) -> None:
        """A server says nothing of other temperatures than 1, which a lumped rest needs."""
        if self._served and self.temperature != 1.0:
            raise UserError(
                f"a server tells logprobs at temperature 1, so a temperature of {self.temperature:g} needs a teacher "
                "that is weights here: give --teacher, or a folder."
            )

    async def run(self, bench: Bench) -> Left:
        """All steps, from the last checkpoint on. Raises UserError, ModelError."""
        packed = await anyio.to_thread.run_sync(read_weights, bench.model)
        examples = await anyio.to_thread.run_sync(examples_of, bench, packed)
        targets = await self._targets(bench, packed, examples)
        return await anyio.to_thread.run_sync(self._train, bench, packed, examples, targets)

    @property
    def _served(self) -> bool:
        return self.teacher.startswith(("http://", "https://"))

    async def _targets(self, bench: Bench, packed: Weights, examples: Sequence[Sample]) -> list[Target]:
        """What the teacher says of all examples; a chunk that is on disk is not asked for again."""
        files = {start: bench.folder / "targets" / f"{start:08d}.npz" for start in range(0, len(examples), self.chunk)}
        if missing := {start: path for start, path in files.items() if not path.exists()}:
            if self._served:
                async with open_server(
                    self.teacher, self.k, packed.tokenizer, key=os.environ.get(KEY) or None
                ) as served:
                    ids = list(examples[0].ids)
                    await served.check(packed.tokenizer, packed.tokenizer.decode(ids, skip_special_tokens=False))
                    await self._ask(bench, served, examples, missing)
            else:
                await self._ask(bench, await anyio.to_thread.run_sync(self._local, bench, packed), examples, missing)
        return [target for path in files.values() for target in await anyio.to_thread.run_sync(read_targets, path)]

    def _local(self, bench: Bench, packed: Weights) -> LocalTeacher:
        path = Path(self.teacher).expanduser() if self.teacher else bench.teacher
        assert path is not None
        policy = LanguagePolicy(open_weights(path, packed.tokenizer), tokens=self.row_tokens)
        return LocalTeacher(policy, self.k, self.temperature)

    async def _ask(self, bench: Bench, teacher: Teacher, examples: Sequence[Sample], files: dict[int, Path]) -> None:
        for start, path in files.items():
            found = await teacher.targets(examples[start : start + self.chunk])
            await anyio.to_thread.run_sync(write_targets, path, found)
            bench.say({"asked": min(start + self.chunk, len(examples)), "of": len(examples)})

    def _train(self, bench: Bench, packed: Weights, examples: list[Sample], targets: list[Target]) -> Left:
        kept, watched = self._split(examples)

        def batch(chosen: Sequence[int]) -> Batch:
            return topk_batch([examples[i] for i in chosen], [targets[i] for i in chosen], self.temperature)

        def tell(step: int, metrics: Metrics) -> None:
            if step == 1 or step % self.save_every == 0:
                anyio.from_thread.run_sync(bench.say, {"step": step, "loss": metrics["loss"]})

        net = load_net(packed)
        policy = LanguagePolicy(net, tokens=self.row_tokens)
        figures: Metrics = {"examples": float(len(kept)), "held_out": float(len(watched))}
        if watched:
            figures["kl_before"] = teacher_kl(policy, batch(watched), self.tail)
        figures |= fine_tune(
            net,
            [examples[i] for i in kept],
            self,
            folder=bench.folder,
            seed=bench.seed,
            tell=tell,
            make=lambda chosen: batch([kept[i] for i in chosen]),
            loss=LossConfig(tail=self.tail),
        )
        if watched:
            figures["kl_after"] = teacher_kl(policy, batch(watched), self.tail)
        left = save_net(net, packed, bench.folder / MODEL)
        return Left(model=left.name, figures=figures)

    def _split(self, examples: Sequence[Sample]) -> tuple[list[int], list[int]]:
        """The examples to learn from, and those of the last tasks, which are only watched."""
        tasks = list(dict.fromkeys(example.task for example in examples))
        count = min(len(tasks) - 1, max(round(self.held_out * len(tasks)), int(self.held_out > 0)))
        last = set(tasks[len(tasks) - count :])
        kept = [i for i, example in enumerate(examples) if example.task not in last]
        return kept, [i for i, example in enumerate(examples) if example.task in last]
