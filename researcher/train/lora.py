"""Low-rank adapters (Hu et al. 2021) on a model to train: `with_adapters(net, LoraSettings(rank=16))`, by peft."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from researcher.errors import UserError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The bounds that a vLLM server (0.32) can be started with."""


class LoraSettings(BaseModel):
    """Adapters that are trained instead of the weights: W x + alpha / rank * B A x."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1, le=RANKS[-1])
    alpha: float = Field(default=32.0, gt=0.0)
    targets: tuple[str, ...] = Field(default=(), description="names of linear layers; none: all but the head")

    @property
    def bound(self) -> int:
        """The least rank that a server may be started with to serve these adapters."""
        return next(rank for rank in RANKS if rank >= self.rank)


def with_adapters(net: nn.Module, settings: LoraSettings, seed: int) -> nn.Module:
    """The network with fresh adapters, which add nothing yet and are all that is trained. Raises UserError for layers
    that it has not."""
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError:
        raise UserError("Adapters need peft, which is not installed: pip install peft.") from None
    made: Any
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(seed)
        try:
            made = get_peft_model(
                net,  # type: ignore[arg-type, unused-ignore]
                LoraConfig(
                    r=settings.rank,
                    lora_alpha=settings.alpha,  # type: ignore[arg-type, unused-ignore]
                    target_modules=list(settings.targets) or "all-linear",
                    lora_dropout=0.0,
                    bias="none",
                    task_type="CAUSAL_LM",
                ),
            )
        except ValueError as error:
            linear = sorted({n.rpartition(".")[2] for n, m in net.named_modules() if isinstance(m, nn.Linear)})
            raise UserError(
                f"lora.targets: the model has no such layers ({' '.join(str(error).split())[:120]}); it has: "
                f"{', '.join(linear)}."
            ) from None
    out: nn.Module = made
    return out
