"""The trainer: rewards in, weights out. `Trainer(policy, config).update(samples)` does one iteration.

A step is exact however it is cut: its denominators are those of the whole step, so how many tokens fit into memory at
once changes nothing but the time it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from researcher.train import memory, parallel
from researcher.train.advantages import AdvantageConfig, token_advantages
from researcher.train.batch import Batch
from researcher.train.losses import Denominators, LossConfig, compute_loss
from researcher.train.mismatch import differences, gap
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample

Metrics = dict[str, float]


class TrainerConfig(BaseModel):
    """How weights are updated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: LossConfig = LossConfig.preset("dapo")
    advantages: AdvantageConfig = AdvantageConfig()
    rate: float = Field(default=1e-6, gt=0.0, description="learning rate of AdamW at its height")
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0.0)
    clip: float | None = Field(default=1.0, gt=0.0, description="bound of the gradient's norm")
    warmup: int = Field(default=0, ge=0, description="steps over which the rate rises")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    steps: int | None = Field(default=None, ge=1, description="steps after which a falling schedule ends")
    minibatches: int = Field(default=1, ge=1, description="steps that an iteration's samples are shared out to")
    epochs: int = Field(default=1, ge=1, description="how often an iteration goes over its samples")
    reset_optimizer: bool = Field(default=False, description="forget the moments at each iteration (Kimi k1.5)")
    row_tokens: int = Field(default=2048, ge=16, description="tokens of one forward pass")
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="of matrix products (autocast); weights and moments stay float32; None: the policy's"
    )
    seed: int = 0


class Trainer:
    """Holds the optimiser of a policy. `reference`: what a KL term compares with; None: the weights it began with are
    not kept, and a loss with such a term refuses."""

    def __init__(
        self, policy: LanguagePolicy, config: TrainerConfig, *, reference: LanguagePolicy | None = None
    ) -> None:
        self.policy, self.config, self.reference = policy, config, reference
        if config.dtype is not None:
            policy.dtype = getattr(torch, config.dtype)
        self.team = parallel.TEAM.get()
        for each in (policy, reference):
            if self.team is not None and each is not None:
                parallel.place(each, self.team.device)
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("the model has no parameter that is to be trained")
        self.optimizer = self._new_optimizer()
        self.steps = self.iterations = 0
        self.fits = False
        if self.team is not None:
            self.team.tell(("open", parallel.described(self)))

    def update(self, samples: Sequence[Sample]) -> list[Metrics]:
        """One iteration over weighed samples: the metrics of each of its steps."""
        rewards = [sample.reward for sample in samples]
        batch = Batch.of(samples, token_advantages(samples, rewards, self.config.advantages))
        return self.learn(batch)

    def learn(self, batch: Batch) -> list[Metrics]:
        """One iteration over a batch with advantages, or with weights of other components."""
        if self.team is not None:
            parallel.check_share(self.team, batch.samples // self.config.minibatches)
            self.team.tell(("learn", batch))
        return self.together(batch)

    def together(self, batch: Batch) -> list[Metrics]:
        """The same, done by each process of a team at once."""
        config = self.config
        if not self.fits:
            memory.check(self.policy, self.parameters, batch, began=bool(self.optimizer.state))
            self.fits = True
        if config.reset_optimizer:
            self.optimizer = self._new_optimizer()
        if self._needs_old():
            batch.old = self._frozen(self.policy, batch)
        if config.loss.beta or batch.reference_kl is not None:
            batch.reference = self._reference(batch)
        metrics = [self.step(batch.select(part)) for part in self._minibatches(batch.samples)]
        self.iterations += 1
        if batch.old is not None:  # of all steps together, as the sampler was asked once
            whole = gap(differences(batch, batch.old))
            metrics = [{**step, **whole} for step in metrics]
        return metrics

    def step(self, batch: Batch) -> Metrics:
        """One step of the optimiser."""
        loss_config = self.config.loss
        whole = Denominators.of(batch, loss_config)
        parts, sums = Metrics(), Metrics()
        apart: list[Tensor] = [torch.zeros(0)]
        self.policy.model.train()
        team = self.team
        with memory.told(self.policy, self.steps + 1):
            for row in self.policy.rows(batch) if team is None else team.rows(self.policy, batch):
                part = batch.select(row.samples)
                scored = self.policy.score_row(row, part, entropy=True)
                loss = compute_loss(part.to(self.policy.device), scored, loss_config, whole)
                loss.value.backward()  # type: ignore[no-untyped-call]
                _add(parts, loss.parts)
                _add(sums, loss.sums)
                apart.append(differences(part, scored.logprobs))
                if scored.entropy is not None:
                    _add(
                        sums, {"entropy": float((scored.entropy.detach() * part.mask.to(scored.entropy.device)).sum())}
                    )
        if team is not None:
            team.add_gradients(self.parameters)
            parts, sums = team.added(parts, sums)
            apart = [difference for said in team.gathered(apart) for difference in said]
        norm = self._descend()
        return {**self._metrics(batch, parts, sums, norm), **gap(torch.cat(apart))}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, in types that torch loads without running code."""
        return {
            "parameters": [p.detach().clone() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "iterations": self.iterations,
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises ValueError where it is another model's."""
        if self.team is not None:
            self.team.tell(("load", state))
        self.restore(state)

    def restore(self, state: dict[str, Any]) -> None:
        """The same, done by each process of a team."""
        shapes = [tuple(p.shape) for p in self.parameters]
        if [tuple(p.shape) for p in state["parameters"]] != shapes:
            raise ValueError("the checkpoint is of a model with other shapes")
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.iterations = state["steps"], state["iterations"]
        torch.set_rng_state(state["rng"])

    def rate(self) -> float:
        """The learning rate of the next step."""
        config, done = self.config, self.steps
        if done < config.warmup:
            return config.rate * (done + 1) / config.warmup
        if config.schedule == "constant" or config.steps is None:
            return config.rate
        gone = min(1.0, (done - config.warmup) / max(1, config.steps - config.warmup))
        return config.rate * (1.0 - gone if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone)))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(
            self.parameters, lr=config.rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )

    def _needs_old(self) -> bool:
        """With one step an iteration the policy has not moved yet, and its own logprobs are the old ones."""
        config = self.config
        return config.minibatches * config.epochs > 1 or config.loss.mismatch.mode != "off"

    def _minibatches(self, samples: int) -> Iterator[list[int]]:
        """The samples of each step, shuffled anew for each epoch; the same after a resume."""
        config = self.config
        if config.minibatches > samples:
            raise ValueError(f"{samples} samples cannot be shared out to {config.minibatches} steps")
        for epoch in range(config.epochs):
            rng = np.random.default_rng((config.seed, self.iterations, epoch))
            order = rng.permutation(samples) if config.minibatches > 1 else np.arange(samples)
            for part in np.array_split(order, config.minibatches):
                yield sorted(part.tolist())

    def _frozen(self, policy: LanguagePolicy, batch: Batch) -> Tensor:
        with torch.no_grad():
            return policy.score(batch).logprobs.cpu()

    def _reference(self, batch: Batch) -> Tensor:
        if self.reference is not None:
            return self._frozen(self.reference, batch)
        disabled: Callable[[], AbstractContextManager[None]] | None = getattr(
            self.policy.model, "disable_adapter", None
        )
        if disabled is None:
            raise ValueError("the loss has a KL term, but the trainer was given no reference model")
        with disabled() if callable(disabled) else nullcontext():
            return self._frozen(self.policy, batch)

    def _descend(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip or math.inf)
        if not torch.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(f"the gradient of step {self.steps + 1} is {float(norm)}: nothing was changed")
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return float(norm)

    def _metrics(self, batch: Batch, parts: Metrics, sums: Metrics, norm: float) -> Metrics:
        tokens = sums.pop("tokens", 0.0) or float(batch.mask.sum()) or 1.0
        means = {name: value / tokens for name, value in sums.items()}
        return {
            "loss": sum(parts.values()),
            **{f"loss/{name}": value for name, value in parts.items()},
            **means,
            "gradient": norm,
            "rate": self.optimizer.param_groups[0]["lr"],
            "sampled_tokens": float(batch.mask.sum()),
            "samples": float(batch.samples),
            "step": float(self.steps),
        }


def _add(into: Metrics, more: Metrics) -> None:
    for name, value in more.items():
        into[name] = into.get(name, 0.0) + value
