"""A training of which every number depends on its seed alone: a small network samples in this process.

    python train_harness.py FOLDER KILL_AT ITERATIONS SETTINGS    (SETTINGS: the loop's, as JSON)

trains and dies by SIGKILL at its KILL_AT-th model call (0: not at all).
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from researcher.protocols import Model, Progress
from researcher.train.loop import Iteration, Loop, LoopConfig
from researcher.train.policy import LanguagePolicy
from researcher.train.publish.versioned import VersionedModel
from researcher.train.trainer import Trainer
from researcher.types import Capabilities, Completion, FinishReason, Message, ModelRequest, Task, Usage

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789 .?<>/\n"
EOS, VOCABULARY = len(ALPHABET), 48
TASKS = [Task(question=f"{name}?") for name in ("one", "two", "three", "four", "five")]
SETTINGS: dict[str, Any] = {
    "tasks": 2, "group": 3, "params": {"stop": "full", "temperature": 1.0, "max_tokens": 16},
    "rewards": [{"name": "overlong", "params": {"limit": 16, "cache": 16}}], "sampling": {"refills": 0, "keep": "all"},
    "trainer": {"rate": 3e-3, "loss": {"mismatch": {"mode": "truncate"}}},
}  # fmt: skip
"""Short replies are better; a rollout has 16 tokens at the most."""


def network(seed: int = 0, *, vocabulary: int = VOCABULARY, layers: int = 1, scale: float = 4.0) -> Any:
    """A small Qwen3 with random weights, in evaluation mode. `scale`: what its matrices are multiplied by, because it
    would say all things nearly alike, and every test of a gradient would be of zeros."""
    torch.manual_seed(seed)
    shape = Qwen3Config(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=1024, tie_word_embeddings=True, pad_token_id=0,
    )  # fmt: skip
    made = Qwen3ForCausalLM(shape)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return made.eval()


def encode(text: str) -> tuple[int, ...]:
    """An id for each character; those of no use are all one."""
    return tuple([max(0, ALPHABET.find(character)) for character in text.lower()])


class NetModel:
    """The network as a Model: a token at a time, by the request's own seed, so that nothing else can change it."""

    def __init__(self, net: Any, calls: Callable[[ModelRequest], Awaitable[None]] | None = None) -> None:
        self._net, self._calls = net, calls

    @property
    def uri(self) -> str:
        return "net:test"

    async def capabilities(self) -> Capabilities:
        return Capabilities(token_ids=True, logprobs=True, tools=False, context=1024)

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        if self._calls is not None:
            await self._calls(request)
        await anyio.lowlevel.checkpoint()
        prompt = encode("\n".join(message.content for message in request.messages)[-60:])
        if request.prefix:
            assert request.prefix_ids[: len(prompt)] == prompt
            prompt = request.prefix_ids
        generator = torch.Generator().manual_seed(request.sampling.seed or 0)
        ids, logprobs, finish = list[int](), list[float](), FinishReason.LENGTH
        heat = request.sampling.temperature or 0.0
        while len(ids) < (request.sampling.max_tokens or 16):
            with torch.no_grad():
                logits = self._net(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1] / (heat or 1.0)
            logits[EOS + 1 :] = -torch.inf
            logits[EOS] += 3.0
            spread = logits.log_softmax(-1)
            token = int(torch.multinomial(spread.exp(), 1, generator=generator)) if heat else int(spread.argmax())
            ids.append(token)
            logprobs.append(float(spread[token]))
            if token == EOS:
                finish = FinishReason.STOP
                break
        text = "".join(ALPHABET[token] for token in ids if token != EOS)
        return Completion(
            message=Message(role="assistant", content=text), finish=finish, model="net", prompt_ids=prompt,
            token_ids=tuple(ids), logprobs=tuple(logprobs),
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=len(ids), calls=1),
        )  # fmt: skip

    async def aclose(self) -> None:
        return


class Copies:
    """Publishes a copy of the network."""

    def __init__(self, calls: Callable[[ModelRequest], Awaitable[None]] | None = None) -> None:
        self._calls = calls
        self.published: list[str] = []

    async def publish(self, net: Any, target: VersionedModel, version: str) -> float:
        async def opened(stack: AsyncExitStack) -> Model:
            return NetModel(copy.deepcopy(net).eval(), self._calls)

        self.published.append(version)
        return await target.switch(opened, version)


def training(
    folder: Path,
    iterations: int,
    changes: dict[str, Any] | None = None,
    calls: Callable[[ModelRequest], Awaitable[None]] | None = None,
    **more: Any,
) -> Loop:
    """A loop over the tasks, from the same weights each time. `calls`: awaited at each call of the model."""
    config = LoopConfig.model_validate({**SETTINGS, "iterations": iterations, **(changes or {})})
    net = network()
    trainer = Trainer(LanguagePolicy(net, tokens=512), config.trainer)
    model = VersionedModel(NetModel(copy.deepcopy(net), calls), "v0")
    return Loop(config, trainer, model, Copies(calls), **{"tasks": TASKS, "folder": folder, **more})


def ignore(iteration: Iteration) -> None:
    """Tell nobody."""


def main() -> None:
    folder, kill_at, iterations, settings = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    made = 0

    async def calls(request: ModelRequest) -> None:
        nonlocal made
        made += 1
        if made == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    anyio.run(training(folder, iterations, json.loads(settings), calls).run, ignore)


if __name__ == "__main__":
    main()
