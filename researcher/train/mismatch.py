"""Correction for a sampler whose numerics are not the trainer's: truncated importance sampling, or masking.

vLLM and the trainer give one token two logprobs, log mu and log pi_old. Yao et al. 2025 ("Your efficient RL framework
secretly brings you off-policy training") weigh the loss by w = pi_old / mu, cut off or masked where it is extreme.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from researcher.train.batch import Batch
from researcher.train.segments import segment_sum


class Mismatch(BaseModel):
    """How w is used. `level` sequence: one w for a sample, the product of its tokens'."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["off", "truncate", "mask"] = Field(default="off", description="outside the bounds: cut to, or drop")
    level: Literal["token", "sequence"] = Field(default="token", description="TRL's default masks sequences")
    low: float = Field(default=0.0, ge=0.0, description="lower bound of w")
    high: float = Field(default=3.0, gt=0.0, description="upper bound of w (TRL: 3)")


def importance(batch: Batch, old: Tensor, how: Mismatch) -> Tensor | None:
    """w for each token, [N] without gradient; None where there is nothing to correct. A token whose logprob the sampler
    did not give counts as equal. Raises ValueError where no token has one."""
    if how.mode == "off":
        return None
    if batch.sampler is None:
        raise ValueError("the mismatch correction needs the sampler's logprobs, and the batch has none")
    with torch.no_grad():
        difference = torch.nan_to_num((old - batch.sampler) * batch.mask, nan=0.0)
        if how.level == "sequence":
            difference = segment_sum(difference, batch.sequence, batch.samples)[batch.sequence]
        w = torch.exp(difference)
        if how.mode == "truncate":
            return w.clamp(how.low, how.high)
        return torch.where((w < how.low) | (w > how.high), 0.0, w)


def differences(batch: Batch, trainer: Tensor) -> Tensor:
    """d = log pi_old - log mu of the sampled tokens that both scored, without gradient."""
    if batch.sampler is None:
        return torch.zeros(0)
    found = (trainer.detach().cpu() - batch.sampler.cpu())[batch.mask.cpu()]
    return found[found.isfinite()]


def gap(difference: Tensor) -> dict[str, float]:
    """The largest |d| in nats, and the mean of exp(d), which is 1 where the numerics are the same; the mean |d| is the
    loss's `mismatch`. Empty where nothing can be compared."""
    if not difference.numel():
        return {}
    return {"mismatch/max": float(difference.abs().max()), "mismatch/ratio": float(torch.exp(difference).mean())}
