"""Supervised fine-tuning: cross-entropy on what an assistant said, through the trainer's own step.

Samples are learned from by the ids they were sampled as. Conversations are rendered with the model's chat template, and
what the assistant says in them is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import PreTrainedTokenizerFast

from researcher.errors import UserError
from researcher.train import checkpoint
from researcher.train.batch import Batch
from researcher.train.board import open_board
from researcher.train.journal import Journal
from researcher.train.losses import LossConfig
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample
from researcher.train.trainer import Metrics, Trainer, TrainerConfig
from researcher.train.weights import Weights


class SFTConfig(BaseModel):
    """How examples are learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(default=2.0, gt=0.0, description="how often each example is seen")
    batch: int = Field(default=16, ge=1, description="examples of a step")
    rate: float = Field(default=1e-4, gt=0.0)
    warmup: float = Field(default=0.05, ge=0.0, lt=1.0, description="share of the steps over which the rate rises")
    weight_decay: float = Field(default=0.0, ge=0.0)
    clip: float | None = Field(default=1.0, gt=0.0)
    row_tokens: int = Field(default=4096, ge=16)
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of matrix products (autocast)")
    save_every: int = Field(default=50, ge=1, description="steps between checkpoints")

    def steps(self, examples: int) -> int:
        """Steps in all."""
        return max(1, math.ceil(self.epochs * examples / self.batch))


def fine_tune(
    net: nn.Module,
    examples: Sequence[Sample],
    config: SFTConfig,
    *,
    folder: Path,
    seed: int = 0,
    steps: int | None = None,
    tell: Callable[[int, Metrics], None] = lambda step, metrics: None,
    make: Callable[[Sequence[int]], Batch] | None = None,
    loss: LossConfig | None = None,
    policy: LanguagePolicy | None = None,
) -> Metrics:
    """Train `net` in place, from the folder's last checkpoint on; the losses of its first and last steps.

    `make` gives the batch of some of the examples, and `policy` its scores, where another loss than cross-entropy is
    wanted of them.
    """
    total = steps or config.steps(len(examples))
    trainer = Trainer(
        policy or LanguagePolicy(net, tokens=config.row_tokens),
        TrainerConfig(
            rate=config.rate, warmup=round(config.warmup * total), schedule="cosine", steps=total,
            weight_decay=config.weight_decay, clip=config.clip, row_tokens=config.row_tokens, seed=seed,
            loss=loss or LossConfig(), dtype=config.dtype,
        ),
    )  # fmt: skip
    journal = Journal(folder / "metrics.jsonl", open_board(folder))
    if (state := checkpoint.latest(folder / "checkpoints")) is not None:
        trainer.load_state(state)
    journal.resume(trainer.steps)
    while trainer.steps < total:
        chosen = members(len(examples), config.batch, trainer.steps, seed)
        [metrics] = trainer.learn(make(chosen) if make else batch_of([examples[i] for i in chosen]))
        journal.add(trainer.steps, metrics)
        tell(trainer.steps, metrics)
        if trainer.steps % config.save_every == 0 or trainer.steps == total:
            checkpoint.save(folder / "checkpoints", trainer.steps, trainer.state())
    losses = [line["loss"] for line in journal.lines()]
    return {"steps": float(total), "loss_first": losses[0], "loss_last": losses[-1]}


def members(count: int, batch: int, step: int, seed: int) -> list[int]:
    """The examples of a step: each epoch is a permutation, and steps go on across its border."""
    size = min(batch, count)
    chosen: list[int] = []
    for place in range(step * size, (step + 1) * size):
        epoch, at = divmod(place, count)
        chosen.append(int(np.random.default_rng((seed, epoch)).permutation(count)[at]))
    return chosen


def batch_of(examples: Sequence[Sample]) -> Batch:
    """A batch on which cross-entropy alone counts, at temperature 1: the mean over the tokens that were said."""
    plain = [msgspec.structs.replace(example, temperature=1.0, logprobs=()) for example in examples]
    batch = Batch.of(plain)
    return replace(batch, cross_entropy=batch.mask.float(), policy=batch.mask.float() * 0.0)


def read_examples(path: Path, packed: Weights) -> list[Sample]:
    """The examples of a JSONL file, a sample or `{"messages": [...]}` a line. Raises UserError with the broken line."""
    renderer = Renderer(packed)
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line)
            if not isinstance(record, Mapping):
                raise ValueError("a JSON object is wanted")
            made = msgspec.convert(record, Sample) if "ids" in record else renderer.example(record, str(number))
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: not an example ({error}).") from None
        if made.ids and max(made.ids) >= packed.config["vocab_size"]:
            raise UserError(f"{path}:{number}: its token ids are another tokenizer's: {max(made.ids)} is unknown here.")
        found.append(made)
    if not found:
        raise UserError(f"{path} has no examples.")
    return found


class Renderer:
    """Turns conversations into ids with the model's own template."""

    def __init__(self, packed: Weights) -> None:
        self._tokenizer = packed.tokenizer
        make: Any = PreTrainedTokenizerFast
        self._template: Any = make(tokenizer_object=packed.tokenizer, chat_template=packed.chat_template)

    def example(self, record: Mapping[str, Any], name: str) -> Sample:
        """The conversation as a sample, in which what the assistant said counts. Raises ValueError, KeyError."""
        ids: list[int] = []
        mask: list[bool] = []
        for text, said in self._pieces(record["messages"], record.get("tools")):
            new = self._tokenizer.encode(text, add_special_tokens=False).ids
            ids += new
            mask += [said] * len(new)
        if not any(mask):
            raise ValueError("no assistant says anything in it")
        return Sample(run="given", thread=name, task=name, ids=tuple(ids), mask=tuple(mask))

    def _pieces(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> Iterator[tuple[str, bool]]:
        """The rendered text in pieces. Where a template renders earlier turns anew (it drops their thoughts, say), only
        what was said last can count: what the model was given must be what it will be given."""
        whole, done = self._text(messages, tools), ""
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        for turn in turns:
            before = self._text(messages[:turn], tools, asks=True)
            after = self._text(messages[: turn + 1], tools)
            if not (whole.startswith(after) and after.startswith(before)):
                if turn == turns[-1]:
                    raise ValueError("the template does not render the last turn as a continuation")
                continue
            yield before[len(done) :], False
            # What the template puts after the turn's end mark is not sampled.
            end = after.rstrip()
            yield end[len(before) :], True
            done = end
        if done:
            yield whole[len(done) :], False

    def _text(self, messages: Sequence[Mapping[str, Any]], tools: Any, *, asks: bool = False) -> str:
        text: str = self._template.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=asks
        )
        return text
