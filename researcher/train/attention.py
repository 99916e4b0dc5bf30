"""Attention over packed rows that computes what is visible, nearly alone: a row's dense mask is mostly empty.

A row is cut into tiles of neighbouring queries. All that a tile sees are some runs of tokens before it (its prompt, its
fork) and itself, so each tile is one small attention over these. On the CPU, where attention costs what the
mask covers and not what it lets through, that is most of a step's time; on a GPU one large launch is cheaper.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from researcher.train.packing import Row

NAME = "researcher_tiles"
SMALLEST, LARGEST = 32, 128
"""Queries of a tile: it ends where a sample does, once it has the smaller number, and at the larger at the latest."""


class Tile(NamedTuple):
    """The queries [start, stop) of a row, the runs [from, to) of keys that any of them sees, and which sees which.

    `mask`: [1, 1, queries, keys] float32, 0 or -inf.
    """

    start: int
    stop: int
    runs: list[tuple[int, int]]
    mask: Tensor


def tiles(row: Row) -> list[Tile]:
    """The tiles of a row, in its order."""
    found, start, length = [], 0, len(row.ids)
    forks = (row.position[1:] != row.position[:-1] + 1).nonzero().squeeze(-1).add(1).tolist()
    for fork in [*forks, length]:
        if fork - start < SMALLEST and fork < length:
            continue
        count = -(-(fork - start) // LARGEST)
        cuts = [start + (fork - start) * part // count for part in range(count + 1)]
        found += [_tile(row, a, b) for a, b in itertools.pairwise(cuts)]
        start = fork
    return found


def _tile(row: Row, start: int, stop: int) -> Tile:
    keys = torch.cat([(row.end[:start] > start).nonzero().squeeze(-1), torch.arange(start, stop)])
    breaks = (keys.diff() != 1).nonzero().squeeze(-1)
    first = [int(keys[0]), *keys[breaks + 1].tolist()]
    last = [*keys[breaks].tolist(), stop - 1]
    at = torch.arange(start, stop)[:, None]
    seen = (at >= keys) & (at < row.end[keys])
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    return Tile(start, stop, [(a, b + 1) for a, b in zip(first, last, strict=True)], mask[None, None])


def install(model: Any) -> bool:
    """Whether a model of transformers now attends by tiles where it is called with `tiles=`; without, as before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation not in ("sdpa", NAME):  # what was chosen by hand stays
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tiles: list[Tile] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface. query: [1, heads, L, width]; key and value may have fewer heads. Returns
    [1, L, heads, width]."""
    if tiles is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **more
        )
        return found
    return _Tiled.apply(query, key, value, tiles, scaling, dropout), None  # type: ignore[no-untyped-call]


class _Tiled(torch.autograd.Function):
    """Each tile keeps a graph of its own, so that on the way back its gradients are added in place.

    As a part of the whole graph each run of keys would have a gradient as long as the row.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, tiles: list[Tile], scaling: float | None, dropout: float
    ) -> Tensor:
        learning = any(ctx.needs_input_grad)
        parts = []
        for tile in tiles:
            own = query[:, :, tile.start : tile.stop].detach()
            keys, values = (torch.cat([x[:, :, a:b] for a, b in tile.runs], 2) for x in (key.detach(), value.detach()))
            for leaf in (own, keys, values):
                leaf.requires_grad_(learning)
            with torch.set_grad_enabled(learning):
                part = nn.functional.scaled_dot_product_attention(
                    own, keys, values, attn_mask=tile.mask, dropout_p=dropout, scale=scaling, enable_gqa=True
                )
            parts.append((tile, (own, keys, values), part))
        ctx.parts, ctx.like = parts if learning else None, (key, value)
        return torch.cat([part.detach().transpose(1, 2) for _, _, part in parts], 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        [grad] = grads
        queries, (keys, values) = [], (torch.zeros_like(x) for x in ctx.like)
        for tile, leaves, part in ctx.parts:
            own, *others = torch.autograd.grad(part, leaves, grad[:, tile.start : tile.stop].transpose(1, 2))
            queries.append(own)
            for into, found in zip((keys, values), others, strict=True):
                for (a, b), piece in zip(tile.runs, found.split([b - a for a, b in tile.runs], 2), strict=True):
                    into[:, :, a:b] += piece
        ctx.parts = None
        return torch.cat(queries, 2), keys, values, None, None, None
