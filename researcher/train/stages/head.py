"""Stage `head`: a process reward model with a head of two classes, from the labels of a stage `label`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anyio.from_thread
import anyio.to_thread
import msgspec
from pydantic import Field

from researcher.errors import UserError
from researcher.train.batch import Batch
from researcher.train.embedded.convert import export_hf
from researcher.train.head import (
    HeadPolicy,
    HeadRenderer,
    Labels,
    Solution,
    head_batch,
    judge,
    make_head,
    save_head,
    solutions,
)
from researcher.train.process import Labelled
from researcher.train.sample import Sample
from researcher.train.sft import SFTConfig, fine_tune
from researcher.train.stages.base import SAMPLES, Bench, Left, Stage
from researcher.train.trainer import Metrics
from researcher.train.weights import load_net, read_weights

LABELS = "labels.jsonl"
HEAD = "head"


class HeadStage(Stage, SFTConfig):
    """Cross-entropy with the labels at the ends of steps. Leaves `head`, a folder that transformers and vLLM's pooling
    server load (its SERVE.md says how), and `metrics.jsonl`; the next stage begins with the weights this one did.

    Its figures are of held-out questions, beside a constant at the share of good steps (`prior`).
    """

    kind: Literal["head"] = "head"
    data: tuple[str, ...] = Field(min_length=1, description="stages of labels; given: --data, lines as in labels.jsonl")
    labels: Labels = Field(default="hard", description="hard: a right answer was reached at all; soft: how often")
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of the questions that are not learned")

    @property
    def sources(self) -> tuple[str, ...]:
        """The labels it learns from."""
        return self.data

    def suits(self, model: Path) -> None:
        """A head is put on the embedded architecture alone."""
        if model.is_dir():
            raise UserError(f"a head is put on the embedded architecture alone; give a GGUF instead of {model}.")

    async def run(self, bench: Bench) -> Left:
        """All steps, from the last checkpoint on. Raises UserError."""
        return await anyio.to_thread.run_sync(self._run, bench)

    def _run(self, bench: Bench) -> Left:
        packed = read_weights(bench.model)
        renderer = HeadRenderer(packed.tokenizer, packed.chat_template)
        found = [each for path in bench.data.values() for each in read_labels(path)]
        learned, watched = self._split(solutions(found, self.labels))
        if not learned:
            raise UserError("there is no labelled step to learn from; label more tasks or solutions.")
        net = make_head(load_net(packed), renderer.vocabulary)
        policy = HeadPolicy(net, tokens=self.row_tokens)
        samples = [renderer.sample(solution) for solution in learned]

        def batch(chosen: Sequence[int]) -> Batch:
            return head_batch([samples[i] for i in chosen])

        def tell(step: int, metrics: Metrics) -> None:
            if step == 1 or step % self.save_every == 0:
                anyio.from_thread.run_sync(bench.say, {"step": step, "loss": metrics["loss"]})

        figures = {"solutions": float(len(learned))}
        figures |= fine_tune(
            net, samples, self, folder=bench.folder, seed=bench.seed, tell=tell, make=batch, policy=policy
        )
        figures |= self._judged(policy, samples, [renderer.sample(solution) for solution in watched])
        self._save(bench, policy, renderer)
        return Left(figures=figures)

    def _split(self, found: Sequence[Solution]) -> tuple[list[Solution], list[Solution]]:
        """Solutions to learn from, and those of the last questions, which are only watched."""
        whole = [solution for solution in found if any(label is not None for label in solution.labels)]
        questions = list(dict.fromkeys(solution.question for solution in whole))
        count = min(len(questions) - 1, max(round(self.held_out * len(questions)), int(self.held_out > 0)))
        last = set(questions[len(questions) - max(count, 0) :])
        return [s for s in whole if s.question not in last], [s for s in whole if s.question in last]

    def _judged(self, policy: HeadPolicy, learned: Sequence[Sample], watched: Sequence[Sample]) -> Metrics:
        if not watched:
            return {}
        labels = [label for sample in learned for label in sample.steps if label == label]
        found = judge(policy, watched, sum(labels) / len(labels))
        return {f"held_out/{name}": value for name, value in found.items() if value == value}

    def _save(self, bench: Bench, policy: HeadPolicy, renderer: HeadRenderer) -> None:
        source = bench.model
        if not source.is_dir():
            source = bench.folder / "base"
            export_hf(bench.model, source)
        save_head(policy.model, renderer, source, bench.folder / HEAD)


def read_labels(path: Path) -> list[tuple[str, Labelled]]:
    """The labels of a file, or those beside a stage's samples. Raises UserError with the broken line."""
    if path.name == SAMPLES:
        path = path.with_name(LABELS)
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            made = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{number}: not a label ({error}).") from None
        if not made.steps or not 0.0 <= made.soft <= 1.0:
            raise UserError(f"{path}:{number}: not a label (it wants steps, and a soft label between 0 and 1).")
        found.append((made.question, Labelled(made.steps, made.soft, made.of)))
    return found


class _Line(msgspec.Struct):
    """A line of labels.jsonl: the steps so far, and the label of the last one."""

    question: str
    steps: tuple[str, ...]
    soft: float
    of: int = 1
