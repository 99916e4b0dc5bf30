"""Stage `rl`: rollouts, rewards, steps, new weights, again; its fields are those of the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import anyio.to_thread
from pydantic import Field
from torch import nn

from researcher.errors import UserError
from researcher.strategies.load import load_strategy
from researcher.train.context import fingerprint_of
from researcher.train.loop import Iteration, Loop, LoopConfig
from researcher.train.lora import LoraSettings, with_adapters
from researcher.train.policy import LanguagePolicy
from researcher.train.publish.served import open_served
from researcher.train.rewards import load_reward
from researcher.train.sample import Sample
from researcher.train.stages.base import MODEL, Bench, Left, NoSignal, Stage
from researcher.train.trainer import Metrics, Trainer
from researcher.train.weights import Weights, load_net, read_weights, save_net
from researcher.types import Task


class ReinforcementStage(Stage, LoopConfig):
    """Reinforcement learning on the recipe's tasks. Leaves the weights, in the form that they came in, and
    `metrics.jsonl`."""

    kind: Literal["rl"] = "rl"
    lora: LoraSettings | None = Field(default=None, description="train adapters alone; they are merged at the end")
    server: str = Field(default="", description="a vLLM server that runs on this machine; none: one is started")

    def check(self) -> None:
        """The rewards and the strategy are there, with these parameters."""
        for term in self.rewards:
            load_reward(term.name, term.params)
        self.refuse()

    def suits(self, model: Path) -> None:
        """Adapters and servers of one's own are for folders; so is a correction by the sampler's logprobs where it
        samples at another temperature than 1, since llama.cpp tells those of 1."""
        if model.is_dir():
            return
        heat = getattr(load_strategy(*self.rollout), "temperature", 1.0)
        if self.trainer.loss.reads_sampler and heat != 1.0:
            raise UserError(
                f"trainer.loss corrects by the sampler's logprobs: the embedded engine's are of temperature 1, and "
                f"{self.rollout[0]} samples at {heat}; set params.temperature = 1.0, or give --model vllm:DIR."
            )
        for name, given in (("lora", self.lora), ("server", self.server)):
            if given:
                raise UserError(f"{name}: {model} is for the embedded engine, which has none; give --model vllm:DIR.")

    def takes(self, tasks: Sequence[Task]) -> None:
        """Its rollouts can call the tools of the tasks."""
        self.refuse(tasks)

    async def run(self, bench: Bench) -> Left:
        """All iterations, from the last checkpoint on. Raises NoSignal."""
        weights = await anyio.to_thread.run_sync(read_weights, bench.model)
        net = await anyio.to_thread.run_sync(self._net, weights, bench)
        trainer = Trainer(self._policy(net), self.trainer, reference=self._reference(weights))

        def tell(iteration: Iteration) -> None:
            findings = list(iteration.findings)
            bench.say({"iteration": iteration.number, "of": self.iterations, **iteration.metrics, "findings": findings})

        def say(text: str) -> None:
            bench.say({"server": text})

        published = bench.folder / "published"
        async with open_served(
            weights, net, bench.model, published, lora=self.lora, say=say, server=self.server
        ) as served:
            loop = Loop(
                self.model_copy(update={"seed": self.seed + bench.seed}),
                trainer,
                served.model,
                served.publisher,
                tasks=bench.tasks,
                held_out=bench.held_out,
                folder=bench.folder,
                update=self._update(bench, trainer, weights),
                settings={"tokenizer": fingerprint_of(weights.tokenizer.get_vocab(), weights.chat_template)},
                texts=bench.texts,
            )
            last = await loop.run(tell)
        if last is not None and last.reason:
            raise NoSignal(f"stopped after iteration {last.number}: {last.reason}")
        left = await anyio.to_thread.run_sync(save_net, net, weights, bench.folder / MODEL)
        figures = {name: v for name, v in loop.last().items() if name.startswith("held_out/")}
        return Left(model=left.name, figures=figures)

    def _net(self, weights: Weights, bench: Bench) -> nn.Module:
        net = load_net(weights)
        if self.lora is None:
            return net
        return with_adapters(net, self.lora, self.seed + bench.seed)

    def _update(
        self, bench: Bench, trainer: Trainer, weights: Weights
    ) -> Callable[[Sequence[Sample]], list[Metrics]] | None:
        """What makes steps of samples, where it is not the group's advantages."""
        return None

    def _policy(self, net: nn.Module) -> LanguagePolicy:
        return LanguagePolicy(net, tokens=self.trainer.row_tokens)

    def _reference(self, weights: Weights) -> LanguagePolicy | None:
        """The weights that the stage began with, where the loss is held to them; of adapters, the model without."""
        return self._policy(load_net(weights)) if self.trainer.loss.beta and self.lora is None else None
