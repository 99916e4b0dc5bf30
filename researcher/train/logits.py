"""Logprobs and entropies from logits with one exponential each way: `token_logprobs(logits, targets, temperature)`.

Written out, logsumexp, gather and entropy walk through the vocabulary nine times and keep three copies of it for
the way back. Here the probabilities alone are kept, and the gradient is made of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def token_logprobs(logits: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax(logits / temperature) of the targets, [n, C], and that distribution's entropies (nats), [n]: float32,
    with gradient. logits: [n, V]; targets: [n, C] int64; temperature: [n]."""
    found: tuple[Tensor, Tensor] = _Logprobs.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
    return found


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        scaled = logits.float() / temperature[:, None]
        top = scaled.amax(-1, keepdim=True)
        share = torch.exp(scaled - top)
        total = share.sum(-1, keepdim=True)
        share /= total
        norm = (top + torch.log(total)).squeeze(-1)
        logprobs = scaled.gather(-1, targets) - norm[:, None]
        entropy = norm - scaled.mul_(share).sum(-1)
        ctx.save_for_backward(share, targets, temperature, entropy)
        ctx.dtype = logits.dtype
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch declares it without the decorator)
        ctx: Any, *grad_outputs: Any
    ) -> tuple[Tensor | None, None, None]:
        logprobs, entropies = grad_outputs  # None where nothing asked for it
        share, targets, temperature, entropy = ctx.saved_tensors
        grad = None
        if logprobs is not None:  # d log p_t / d z_v = [v = t] - p_v
            weights = logprobs / temperature[:, None]
            grad = (share * -weights.sum(-1, keepdim=True)).scatter_add_(-1, targets, weights)
        if entropies is not None:  # d H / d z_v = -p_v (log p_v + H)
            more = (torch.xlogy(share, share) + share * entropy[:, None]) * (-entropies / temperature)[:, None]
            grad = more if grad is None else grad.add_(more)
        return None if grad is None else grad.to(ctx.dtype), None, None
