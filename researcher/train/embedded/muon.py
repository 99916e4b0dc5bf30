"""Muon: momentum whose step is made orthogonal, for matrices; several of one shape go through together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def computing() -> torch.dtype:
    """The type to multiply in: bfloat16 where the processor is made for it, since elsewhere it is emulated, slowly."""
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else torch.float32


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest half-orthogonal matrices, roughly, by Newton and Schulz; batched over the first axis."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(computing())
    flat = x.shape[1] > x.shape[2]
    x = x.mT if flat else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    out: Tensor = x.mT if flat else x
    return out


class Muon:
    """The optimizer; `rate` may be changed between steps."""

    def __init__(self, parameters: Sequence[Tensor], rate: float, momentum: float = 0.95) -> None:
        self.rate, self._momentum = rate, momentum
        self._parameters = list(parameters)
        self._velocity = [torch.zeros_like(p) for p in self._parameters]
        self._groups: dict[torch.Size, list[int]] = {}
        for i, parameter in enumerate(self._parameters):
            self._groups.setdefault(parameter.shape, []).append(i)

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        assert len(gradients) == len(self._parameters)
        torch._foreach_lerp_(self._velocity, gradients, 1 - self._momentum)
        ahead = torch._foreach_lerp(gradients, self._velocity, self._momentum)
        for shape, members in self._groups.items():
            moves = orthogonal(torch.stack([ahead[i] for i in members])).float()
            scale = self.rate * max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_add_([self._parameters[i] for i in members], list(moves.unbind()), alpha=-scale)

    def state_dict(self) -> dict[str, Any]:
        """The momentum."""
        return {"velocity": self._velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved momentum."""
        self._velocity = list(state["velocity"])
