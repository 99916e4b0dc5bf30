"""Causal attention for short rows on a CPU: `attend(q, k, v)`, three times as fast as torch's own, both ways.

torch 2.13's `scaled_dot_product_attention` spent 85 ms a layer on 8 rows of 512 tokens (4 heads of 32, bfloat16,
one core of an EPYC), its backward pass above all. Plain batched matrix products over bands of queries, with the
probabilities kept for the way back, spend 26 ms. An opaque operator, so that torch.compile leaves it alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BAND = 128
"""Queries that are treated together; each band sees only the keys up to its end."""


def _bands(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, BAND):
        yield start, min(start + BAND, length)


def _kept(rows: int, length: int) -> int:
    return rows * sum((end - start) * end for start, end in _bands(length))


def _split(kept: Tensor, rows: int, length: int) -> Iterator[tuple[int, int, Tensor]]:
    at = 0
    for start, end in _bands(length):
        size = rows * (end - start) * end
        yield start, end, kept[at : at + size].view(rows, end - start, end)
        at += size


@torch.library.custom_op("embedded::attend", mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    rows, length, _ = q.shape
    out = torch.empty_like(q)
    kept = q.new_empty(_kept(rows, length))
    future = torch.full((BAND, BAND), float("-inf"), dtype=q.dtype).triu(1)
    for start, end, probabilities in _split(kept, rows, length):
        scores = torch.bmm(q[:, start:end], k[:, :end].mT)
        scores[:, :, start:end] += future[: end - start, : end - start]
        torch.softmax(scores, -1, out=probabilities)
        out[:, start:end] = torch.bmm(probabilities, v[:, :end])
    return out, kept


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(torch.library.get_ctx().new_dynamic_size())


@torch.library.custom_op("embedded::attend_back", mutates_args=())
def _attend_back(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, length, _ = q.shape
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for start, end, probabilities in _split(kept, rows, length):
        g = grad[:, start:end]
        inner = torch.bmm(g, v[:, :end].mT)
        inner = torch._softmax_backward_data(inner, probabilities, -1, q.dtype)
        dq[:, start:end] = torch.bmm(inner, k[:, :end])
        dk[:, :end] += torch.bmm(inner.mT, q[:, start:end])
        dv[:, :end] += torch.bmm(probabilities.mT, g)
    return dq, dk, dv


@_attend_back.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _back(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = _attend_back(grad.contiguous(), *ctx.saved_tensors)  # type: ignore[attr-defined]
    return result


_attend.register_autograd(_back, setup_context=_keep)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (rows, length, width) queries to the keys at or before them; scale the queries first."""
    out: Tensor = _attend(q, k, v)[0]
    return out
