"""The tokens of many samples in one row, without padding: what policies score and losses are computed on.

Every per-token quantity is a vector over the N tokens of all samples, and `sequence[n]` says which sample token n is
of. So a loss does not know how samples were padded, packed or split, and cannot depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from researcher.train.sample import Sample


@dataclass(slots=True)
class Batch:
    """N tokens of S samples. Vectors are [N] and aligned with `ids`; what is None is not known.

    ids, position, sequence: int64; `mask`: bool, sampled by the policy (the first token of a sample never is).
    advantages: float32. sampler: log mu(token), the sampler's word at rollout. old: log pi_old, the trainer's own at
    rollout. reference: log pi_ref. Component weights: `policy` (defaults to the mask), `cross_entropy` and
    `reference_kl`, each float32, 0 where the component does not count the token; `topk` too, the weights of the KL to
    a teacher, whose most likely tokens at this place are `topk_ids` and their logprobs `topk_logprobs`, [N, K] each
    (fewer than K: id -1, logprob -inf). `labels`: what a head should say of the step that ends here, in [0, 1], nan
    where none does. `temperature`: that of sampling, [S].
    """

    ids: Tensor
    position: Tensor
    sequence: Tensor
    mask: Tensor
    temperature: Tensor
    advantages: Tensor | None = None
    sampler: Tensor | None = None
    old: Tensor | None = None
    reference: Tensor | None = None
    policy: Tensor | None = None
    cross_entropy: Tensor | None = None
    reference_kl: Tensor | None = None
    topk: Tensor | None = None
    topk_ids: Tensor | None = None
    topk_logprobs: Tensor | None = None
    labels: Tensor | None = None

    @classmethod
    def of(cls, samples: Sequence[Sample], advantages: Sequence[NDArray[np.float64]] | None = None) -> Batch:
        """The tokens of these samples in their order, with the advantages of each, [T] each.

        The sampler's logprobs are there if any sample has them, nan where one has none. Raises ValueError for a
        sample without tokens, or of which the parts differ in length.
        """
        for sample in samples:
            length = len(sample.ids)
            if not length or len(sample.mask) != length or len(sample.logprobs) not in (0, length):
                raise ValueError(f"the sample of thread {sample.thread} has parts of different lengths, or no tokens")
        lengths = torch.tensor([len(sample.ids) for sample in samples])
        sequence = torch.repeat_interleave(torch.arange(len(samples)), lengths)
        starts = torch.cumsum(lengths, 0) - lengths
        position = torch.arange(int(lengths.sum())) - starts[sequence]
        mask = torch.tensor([m for sample in samples for m in sample.mask], dtype=torch.bool) & (position > 0)
        return cls(
            ids=torch.tensor([i for sample in samples for i in sample.ids]),
            position=position,
            sequence=sequence,
            mask=mask,
            temperature=torch.tensor([sample.temperature for sample in samples], dtype=torch.float32),
            sampler=_sampler(samples, mask),
            advantages=None if advantages is None else torch.from_numpy(np.concatenate(advantages)).float(),
        )

    @property
    def samples(self) -> int:
        """S, the number of samples."""
        return int(self.temperature.numel())

    def select(self, samples: Sequence[int]) -> Batch:
        """The tokens of these samples alone, numbered anew in this order."""
        bounds = torch.searchsorted(self.sequence, torch.arange(self.samples + 1, device=self.sequence.device))
        ranges = [torch.arange(int(bounds[i]), int(bounds[i + 1])) for i in samples]
        keep = torch.cat(ranges).to(self.ids.device)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen = {name: value[keep] for name, value in values.items() if value is not None and name != "temperature"}
        chosen["sequence"] = torch.repeat_interleave(torch.arange(len(ranges)), torch.tensor([len(r) for r in ranges]))
        return replace(self, **chosen, temperature=self.temperature[list(samples)]).to(self.ids.device)

    def counted(self) -> Tensor:
        """The tokens that any component counts, [N] bool: only their logprobs are needed."""
        wanted = self.mask.clone() if self.policy is None else self.policy != 0
        for weights in (self.cross_entropy, self.reference_kl, self.topk):
            if weights is not None:
                wanted |= weights != 0
        return wanted & (self.position > 0)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if value is not None})


class Scores(Protocol):
    """What a policy says of a batch."""

    @property
    def logprobs(self) -> Tensor:
        """log pi(ids[n] | what is before it in its sample), at the sampling temperature, [N] float32 with gradient; 0
        for a sample's first token."""
        ...

    @property
    def entropy(self) -> Tensor | None:
        """Of the distribution that token n was drawn from, nats, [N], without gradient unless asked; or None."""
        ...

    @property
    def topk(self) -> Tensor | None:
        """log pi of the batch's `topk_ids`, [N, K] with gradient, 0 where the component does not count; or None."""
        ...


class Policy(Protocol):
    """A model in training."""

    def score(self, batch: Batch, *, entropy: bool = False) -> Scores:
        """Logprobs of every token of the batch."""
        ...


def _sampler(samples: Sequence[Sample], mask: Tensor) -> Tensor | None:
    if not any(sample.logprobs for sample in samples):
        return None
    nan = float("nan")
    values = [p for sample in samples for p in (sample.logprobs or (nan,) * len(sample.ids))]
    return torch.where(mask, torch.tensor(values, dtype=torch.float32), 0.0)
