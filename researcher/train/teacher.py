"""What a teacher holds likely at each token of given samples: `LocalTeacher(policy, k).targets(samples)`.

A teacher is weights in this process or a vLLM server (`teacher_server`). What it says is kept in files, so that it is
asked once however often the training is cut off.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio.to_thread
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from researcher.errors import UserError
from researcher.train.batch import Batch
from researcher.train.files import write_bytes
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample
from researcher.train.topk import Tail, topk_kl
from researcher.train.weights import load_net, read_weights


class Target(NamedTuple):
    """At each of the n tokens of a sample that were said the teacher's K most likely, [n, K] each: ids, int32, and
    their logprobs, float32. Where it told fewer: -1 and -inf."""

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class Teacher(Protocol):
    """Who says what is likely."""

    async def targets(self, samples: Sequence[Sample]) -> list[Target]:
        """One for each sample, in their order. Raises UserError, ModelError."""
        ...


class LocalTeacher:
    """A teacher in this process. `temperature` divides its logits."""

    def __init__(self, policy: LanguagePolicy, k: int, temperature: float = 1.0) -> None:
        self._policy, self._k, self._temperature = policy, k, temperature

    async def targets(self, samples: Sequence[Sample]) -> list[Target]:
        """One for each sample."""
        return await anyio.to_thread.run_sync(self.targets_of, samples)

    def targets_of(self, samples: Sequence[Sample]) -> list[Target]:
        """The same, at once."""
        batch = Batch.of(_plain(samples, self._temperature))
        ids, logprobs = self._policy.most_likely(batch, self._k)
        counts = torch.bincount(batch.sequence[batch.mask], minlength=batch.samples)[:-1].cumsum(0).tolist()
        parts = (np.split(found[batch.mask].cpu().numpy(), counts) for found in (ids.int(), logprobs))
        return [Target(*pair) for pair in zip(*parts, strict=True)]


def topk_batch(samples: Sequence[Sample], targets: Sequence[Target], temperature: float) -> Batch:
    """A batch on which the KL to the teacher alone counts, each token that was said alike."""
    batch = Batch.of(_plain(samples, temperature))
    weights = batch.mask.float()
    shape = (len(batch.ids), targets[0].ids.shape[1])
    ids = torch.full(shape, -1, dtype=torch.int64)
    logprobs = torch.full(shape, -torch.inf)
    ids[batch.mask] = torch.from_numpy(np.concatenate([target.ids for target in targets])).long()
    logprobs[batch.mask] = torch.from_numpy(np.concatenate([target.logprobs for target in targets]))
    return replace(batch, policy=weights * 0.0, topk=weights, topk_ids=ids, topk_logprobs=logprobs)


def teacher_kl(policy: LanguagePolicy, batch: Batch, tail: Tail) -> float:
    """The mean KL to the teacher over the tokens of a batch, nats."""
    with torch.no_grad():
        scored = policy.score(batch).topk
    assert scored is not None
    assert batch.topk_logprobs is not None
    return float(topk_kl(scored.cpu()[batch.mask], batch.topk_logprobs[batch.mask], tail).mean())


def write_targets(path: Path, targets: Sequence[Target]) -> None:
    """A file of targets that have the same K."""
    file = io.BytesIO()
    np.savez(
        file,
        counts=np.array([len(target.ids) for target in targets]),
        ids=np.concatenate([target.ids for target in targets]),
        logprobs=np.concatenate([target.logprobs for target in targets]),
    )
    write_bytes(path, file.getvalue())


def read_targets(path: Path) -> list[Target]:
    """The targets of a file."""
    with np.load(path) as file:
        cuts = np.cumsum(file["counts"])[:-1]
        return [
            Target(*pair) for pair in zip(np.split(file["ids"], cuts), np.split(file["logprobs"], cuts), strict=True)
        ]


def open_weights(path: Path, tokenizer: Tokenizer) -> nn.Module:
    """The teacher's network in float32. Raises UserError where it has another vocabulary than this tokenizer's."""
    packed = read_weights(path)
    if packed.tokenizer.get_vocab(with_added_tokens=True) != tokenizer.get_vocab(with_added_tokens=True):
        raise UserError(f"the teacher {path} has another tokenizer, so its word on the student's tokens means nothing.")
    return load_net(packed)


def _plain(samples: Sequence[Sample], temperature: float) -> list[Sample]:
    return [msgspec.structs.replace(sample, temperature=temperature, logprobs=()) for sample in samples]
