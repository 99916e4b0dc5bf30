"""Losses of a training step: `compute_loss(batch, scores, LossConfig.preset("dapo"), denominators)`.

One step mixes four components, each with its own token weights and denominator: policy gradient, cross-entropy (replay
of good answers), KL to a reference, and KL of a teacher's most likely tokens (distillation). A denominator is that of
the whole step, known before its first part is computed, so that a step that is split gives the gradient of the step
that is not.

Notation: m the policy's token weights (its mask), A the advantage, r = exp(log pi - log pi_old), mu the sampler. The
formulas are those of the papers named at each; value and gradient are compared with TRL's in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from researcher.train.batch import Batch, Scores
from researcher.train.mismatch import Mismatch, importance
from researcher.train.segments import segment_mean, segment_sum
from researcher.train.topk import Tail, topk_kl

Objective = Literal["clip", "cispo", "sapo", "mirror", "masked", "reinforce"]
Aggregate = Literal["sequence_mean", "token_mean", "constant", "sequence_sum"]


class LossConfig(BaseModel):
    """What a step minimises."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = Field(default="clip", description="clip (PPO, GRPO), cispo, sapo, mirror (Kimi), masked")
    ratio: Literal["token", "sequence"] = Field(default="token", description="sequence: GSPO's, one for each sample")
    epsilon_low: float = Field(default=0.2, ge=0.0, description="clip below 1 (PPO: 0.2)")
    epsilon_high: float = Field(default=0.2, ge=0.0, description="clip above 1 (DAPO: 0.28; cispo: the cap is 1 + it)")
    delta: float | None = Field(default=None, gt=1.0, description="cap on the unclipped ratio (INTELLECT-2: 4)")
    dual: float | None = Field(default=None, gt=1.0, description="dual clip: at most this times -A where A < 0 (3)")
    aggregate: Aggregate = Field(default="token_mean", description="how tokens make a loss")
    length: int = Field(default=1, ge=1, description="L_max of `constant` (Dr. GRPO)")
    beta: float = Field(default=0.0, ge=0.0, description="weight of the k3 KL to the reference (R1: 0.001)")
    beta_corrected: bool = Field(default=False, description="multiply the KL by the ratio (DeepSeek-V3.2; TRL)")
    entropy: float = Field(default=0.0, description="entropy bonus, of the mean over sampled tokens")
    mismatch: Mismatch = Field(default=Mismatch(), description="correction for a sampler with other numerics")
    sapo_positive: float = Field(default=1.0, gt=0.0, description="SAPO's temperature where A > 0")
    sapo_negative: float = Field(default=1.05, gt=0.0, description="SAPO's temperature elsewhere")
    tau: float = Field(default=0.1, gt=0.0, description="mirror descent's regularisation (Kimi k1.5)")
    drift: float = Field(default=0.2, gt=0.0, description="masked: how far pi may leave mu (prime-rl: 0.2)")
    tail: Tail = Field(default="bucket", description="top-k KL: what becomes of the teacher's other tokens")
    drift_penalty: float = Field(default=1e-3, ge=0.0, description="masked: weight of (log pi - log mu)^2")

    @property
    def reads_sampler(self) -> bool:
        """It corrects for the sampler, by the logprobs that the sampler gave."""
        return self.mismatch.mode != "off" or self.objective == "masked"

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The loss of a paper, with changes. Raises KeyError for a name that is not in PRESETS."""
        return cls(**{**PRESETS[name], **changes})


PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {"aggregate": "sequence_mean"},  # Shao et al. 2024
    "dapo": {"aggregate": "token_mean", "epsilon_high": 0.28},  # Yu et al. 2025
    "dr_grpo": {"aggregate": "constant"},  # Liu et al. 2025; with advantages that are not divided by their std
    "gspo": {"aggregate": "sequence_mean", "ratio": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    "luspo": {"aggregate": "sequence_sum", "ratio": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"objective": "cispo", "aggregate": "token_mean", "epsilon_high": 4.0},  # MiniMax-M1, ScaleRL's cap of 5
    "sapo": {"objective": "sapo", "aggregate": "sequence_mean"},  # Gao et al. 2025
    "kimi": {"objective": "mirror", "aggregate": "sequence_sum"},  # Kimi k1.5, section 2.3.2
    "masked": {"objective": "masked", "aggregate": "token_mean"},  # prime-rl's default
    "reinforce": {"objective": "reinforce", "aggregate": "token_mean"},
}


@dataclass(frozen=True, slots=True)
class Denominators:
    """By what the sums of a whole step are divided; those of its parts add up."""

    policy: float = 0.0
    entropy: float = 0.0
    cross_entropy: float = 0.0
    reference_kl: float = 0.0
    topk: float = 0.0

    @classmethod
    def of(cls, batch: Batch, config: LossConfig) -> Self:
        """What a batch adds to its step's denominators."""
        weights = policy_weights(batch)
        tokens = float(weights.sum())
        policy = {
            "sequence_mean": float(batch.samples),
            "sequence_sum": float(batch.samples),
            "token_mean": tokens,
            "constant": float(batch.samples * config.length),
        }[config.aggregate]
        return cls(policy, tokens, *map(_total, (batch.cross_entropy, batch.reference_kl, batch.topk)))

    def __add__(self, other: Denominators) -> Denominators:
        return Denominators(
            self.policy + other.policy,
            self.entropy + other.entropy,
            self.cross_entropy + other.cross_entropy,
            self.reference_kl + other.reference_kl,
            self.topk + other.topk,
        )


@dataclass(slots=True)
class Loss:
    """The part of a step's loss that a batch makes up, with gradient, and sums for the step's metrics.

    `parts`: what each component adds to the value. `sums` add up over the parts of a step; divided by
    `sums["tokens"]` they are means over sampled tokens.
    """

    value: Tensor
    parts: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


def compute_loss(batch: Batch, scores: Scores, config: LossConfig, whole: Denominators) -> Loss:
    """The loss of a batch as its share of the step's. Raises ValueError where the batch lacks what the loss needs."""
    parts: dict[str, Tensor] = {}
    sums: dict[str, float] = {}
    if whole.policy > 0 and batch.advantages is not None:
        per_token, sums = _policy_tokens(batch, scores.logprobs, config)
        parts["policy"] = _aggregate(per_token, batch, config) / whole.policy
    if config.entropy and whole.entropy > 0:
        if scores.entropy is None:
            raise ValueError("the entropy bonus needs the entropies of the policy")
        parts["entropy"] = -config.entropy * (scores.entropy * policy_weights(batch)).sum() / whole.entropy
    if batch.cross_entropy is not None and whole.cross_entropy > 0:
        parts["cross_entropy"] = -(scores.logprobs * batch.cross_entropy).sum() / whole.cross_entropy
    if batch.reference_kl is not None and whole.reference_kl > 0:
        kl = k3(scores.logprobs, _needed(batch.reference, "reference logprobs"))
        parts["reference_kl"] = (kl * batch.reference_kl).sum() / whole.reference_kl
    if batch.topk is not None and whole.topk > 0:
        at = batch.topk != 0
        student = _needed(scores.topk, "the policy's word on the teacher's tokens")[at]
        kl = topk_kl(student, _needed(batch.topk_logprobs, "the teacher's logprobs")[at], config.tail)
        parts["topk"] = (kl * batch.topk[at]).sum() / whole.topk
    if not parts:
        raise ValueError("the batch has neither advantages nor weights of another component: there is nothing to learn")
    value = torch.stack(list(parts.values())).sum()
    return Loss(value, {name: float(part.detach()) for name, part in parts.items()}, sums)


def policy_weights(batch: Batch) -> Tensor:
    """The weights of the policy component, [N] float32: the mask where nothing else is said."""
    return batch.mask.to(torch.float32) if batch.policy is None else batch.policy


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(pi, reference), never negative: e^d - d - 1, d = log reference - log pi (Schulman 2020)."""
    d = reference - logprobs
    return torch.exp(d) - d - 1.0


def _policy_tokens(batch: Batch, logprobs: Tensor, config: LossConfig) -> tuple[Tensor, dict[str, float]]:
    """The loss of each token before aggregation, [N], and sums for the metrics."""
    weights = policy_weights(batch)
    old = logprobs.detach() if batch.old is None else batch.old
    log_ratio = (logprobs - old) * (weights > 0)  # tokens that do not count must not overflow
    if config.ratio == "sequence":
        log_ratio = segment_mean(log_ratio, weights, batch.sequence, batch.samples)[batch.sequence]
    ratio = torch.exp(log_ratio)
    advantages = _needed(batch.advantages, "advantages")
    per_token = _objective(batch, logprobs, log_ratio, ratio, config)
    correction = importance(batch, old, config.mismatch)
    if correction is not None:
        per_token = per_token * correction
    sums = _watch(ratio, advantages, weights, config)
    if config.beta:
        kl = k3(logprobs, _needed(batch.reference, "reference logprobs")) * (weights > 0)
        per_token = per_token + config.beta * (kl * ratio if config.beta_corrected else kl)
        sums["kl"] = float((kl.detach() * weights).sum())
    if batch.sampler is not None:
        known = torch.nan_to_num(batch.sampler - old, nan=0.0)  # a server may have given no logprob
        sums["mismatch"] = float((known.abs() * weights).detach().sum())
    return per_token, sums


def _objective(batch: Batch, logprobs: Tensor, log_ratio: Tensor, ratio: Tensor, config: LossConfig) -> Tensor:
    advantages = _needed(batch.advantages, "advantages")
    match config.objective:
        case "clip":
            return _clipped(ratio, advantages, config)
        case "cispo":  # MiniMax-M1: the ratio is a weight, and every token keeps its gradient
            return -ratio.clamp(max=1.0 + config.epsilon_high).detach() * advantages * logprobs
        case "sapo":
            tau = torch.where(advantages > 0, config.sapo_positive, config.sapo_negative)
            return -torch.sigmoid(tau * (ratio - 1.0)) * 4.0 / tau * advantages
        case "reinforce":
            return -advantages * logprobs
        case "masked":
            return _masked(batch, logprobs, advantages, config)
        case "mirror":
            return _mirror(batch, log_ratio, advantages, config)


def _clipped(ratio: Tensor, advantages: Tensor, config: LossConfig) -> Tensor:
    """PPO's surrogate (Schulman et al. 2017), with DAPO's bounds, a cap of the ratio, the dual clip (Ye 2020)."""
    clipped = ratio.clamp(1.0 - config.epsilon_low, 1.0 + config.epsilon_high)
    free = ratio if config.delta is None else ratio.clamp(max=config.delta)
    loss = -torch.min(free * advantages, clipped * advantages)
    if config.dual is not None:
        loss = torch.where(advantages < 0, torch.min(loss, -config.dual * advantages), loss)
    return loss


def _masked(batch: Batch, logprobs: Tensor, advantages: Tensor, config: LossConfig) -> Tensor:
    """Importance sampling against the sampler itself; a token that has gone far in the wanted direction is dropped."""
    sampler = _needed(batch.sampler, "the sampler's logprobs")
    log_rho = (logprobs - sampler) * (policy_weights(batch) > 0)
    moved = torch.exp(logprobs.detach()) - torch.exp(sampler)
    dropped = torch.where(advantages > 0, moved > config.drift, moved < -config.drift)
    rho = torch.exp(log_rho)
    return -torch.where(dropped, 0.0, advantages * rho) + config.drift_penalty * log_rho.square()


def _mirror(batch: Batch, log_ratio: Tensor, advantages: Tensor, config: LossConfig) -> Tensor:
    """(A - tau sum log r)^2 of each sample, A = reward - tau log Z, spread over its tokens so that their sum is it."""
    if config.ratio == "sequence":
        raise ValueError("mirror descent sums the log ratios of tokens itself: ratio must be token")
    weights = policy_weights(batch)
    totals = segment_sum(log_ratio * weights, batch.sequence, batch.samples)
    counts = segment_sum(weights, batch.sequence, batch.samples)
    share = weights / torch.where(counts > 0, counts, 1.0)[batch.sequence]
    goal = segment_sum(advantages * share, batch.sequence, batch.samples)
    error = (goal - config.tau * totals).square()
    return (error / torch.where(counts > 0, counts, 1.0))[batch.sequence]


def _aggregate(per_token: Tensor, batch: Batch, config: LossConfig) -> Tensor:
    """The numerator of the policy loss."""
    weights = policy_weights(batch)
    if config.aggregate == "sequence_mean":
        return segment_mean(per_token, weights, batch.sequence, batch.samples).sum()
    return (per_token * weights).sum()


def _watch(ratio: Tensor, advantages: Tensor, weights: Tensor, config: LossConfig) -> dict[str, float]:
    """Sums over sampled tokens by which a step is judged."""
    with torch.no_grad():
        low = (ratio < 1.0 - config.epsilon_low) & (advantages < 0)
        high = (ratio > 1.0 + config.epsilon_high) & (advantages > 0)
        return {
            "tokens": float(weights.sum()),
            "ratio": float((ratio * weights).sum()),
            "clipped_low": float((low * weights).sum()),
            "clipped_high": float((high * weights).sum()),
        }


def _total(weights: Tensor | None) -> float:
    return 0.0 if weights is None else float(weights.sum())


def _needed(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"this loss needs {name}, and the batch has none")
    return value
