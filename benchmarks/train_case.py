"""What both sides of `benchmarks.train` step on: a batch of groups, weights, and how a step is timed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from researcher.train.batch import Batch
from researcher.train.sample import Sample

WEIGHTS = Path(__file__).parents[1] / "researcher/models/weights/reasoner.gguf"
GROUP = 16
SHORTEST, MIDDLE, LONGEST, SPREAD = 20, 60, 200, 0.6
"""Tokens of a completion: log-normal around the middle, cut at both ends."""
RATE = 1e-6
BAR = 1.5
TRL, APART, SHARED = "TRL", "ours", "ours, shared"
SIZES = {  # width, inner width, layers, heads, heads of keys and values, vocabulary
    "30m": (512, 1536, 8, 8, 4, 8192),
    "100m": (768, 2304, 12, 12, 4, 32768),
}


class Case(NamedTuple):
    """A batch to step on."""

    model: str
    groups: int
    prompt: int


class Took(NamedTuple):
    """One step: seconds, and what it found."""

    wall: float
    cpu: float
    loss: float
    norm: float


def load(name: str) -> nn.Module:
    """The shipped model in float32, or a Qwen3 of random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from researcher.train.weights import load_net, read_packed

    if name == "shipped":
        return load_net(read_packed(WEIGHTS))
    width, inner, layers, heads, shared, vocabulary = SIZES[name]
    torch.manual_seed(0)
    shape = Qwen3Config(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=shared, head_dim=64, vocab_size=vocabulary, tie_word_embeddings=True,
    )  # fmt: skip
    net: nn.Module = Qwen3ForCausalLM(shape)
    return net.float().eval()


def make(case: Case, vocabulary: int, seed: int = 0) -> Batch:
    """Groups with advantages; the tokens are random, which no step's cost depends on."""
    rng = np.random.default_rng(seed)
    samples, advantages = [], []
    for group in range(case.groups):
        prompt = rng.integers(vocabulary, size=case.prompt).tolist()
        scores = rng.permutation(np.linspace(-1.5, 1.5, GROUP))
        for member in range(GROUP):
            length = int(np.clip(rng.lognormal(np.log(MIDDLE), SPREAD), SHORTEST, LONGEST))
            ids = (*prompt, *rng.integers(vocabulary, size=length).tolist())
            mask = tuple(at >= case.prompt for at in range(len(ids)))
            samples.append(Sample(run="b", thread=f"{group}/{member}", task=str(group), ids=ids, mask=mask))
            advantages.append(np.where(mask, scores[member], 0.0))
    return Batch.of(samples, advantages)


class Stopwatch:
    """Wall and processor seconds since it was made."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._sync()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def took(self, loss: float, norm: float) -> Took:
        """The step since then."""
        self._sync()
        return Took(time.perf_counter() - self.wall, time.process_time() - self.cpu, loss, norm)

    def _sync(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()
