"""Rows for the model: samples without padding, each token that samples share computed once.

Samples are sorted, so that those with a common beginning are neighbours, and a token that the sample before has too is
not laid out again. A row is thus a forest in depth-first order, and those who see token k are an interval: q sees k if
k <= q < end[k]. That one rule packs unrelated samples, shares the prompt of a group, and shares every fork of a tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from researcher.train.batch import Batch


@dataclass(frozen=True, slots=True)
class Row:
    """One forward pass of L tokens for some samples of a batch.

    ids, position, end: [L] int64. `slots`: where each token of the samples, in the order of `samples`, stands: [n].
    """

    samples: tuple[int, ...]
    ids: Tensor
    position: Tensor
    end: Tensor
    slots: Tensor

    def mask(self) -> Tensor:
        """Who sees whom, [1, 1, L, L] bool: query by key."""
        at = torch.arange(len(self.ids), device=self.ids.device)
        return ((at[:, None] >= at) & (at[:, None] < self.end))[None, None]

    def padded(self, multiple: int) -> Row:
        """The row with tokens at its end that nothing sees, so that L is a multiple."""
        more = torch.arange(len(self.ids), -(-len(self.ids) // multiple) * multiple)
        nothing = torch.zeros_like(more)
        ids, position = (torch.cat([own, nothing]) for own in (self.ids, self.position))
        return Row(self.samples, ids, position, torch.cat([self.end, more + 1]), self.slots)

    def before(self, position: Tensor) -> Tensor:
        """Where the token before each token stands, [n]; its own place for a sample's first. `position`: [n]."""
        return torch.where(position > 0, self.slots.roll(1), self.slots)


def pack(batch: Batch, tokens: int, *, share: bool = True) -> list[Row]:
    """The batch as rows of at most so many tokens; a sample is never split, so a longer one is a row of its own.

    `share=False` lays out every token of every sample, for comparison.
    """
    ids = _ids(batch)
    order = sorted(range(len(ids)), key=ids.__getitem__) if share else list(range(len(ids)))
    common = [_common(ids[a], ids[b]) if share else 0 for a, b in itertools.pairwise(order)]
    rows = []
    for start, stop in _cuts([len(ids[i]) for i in order], [0, *common], tokens):
        layout = _Layout()
        for at in range(start, stop):
            layout.add(order[at], ids[order[at]], common[at - 1] if at > start else 0)
        rows.append(layout.row())
    return rows


def _cuts(lengths: Sequence[int], common: Sequence[int], tokens: int) -> Iterator[tuple[int, int]]:
    """The samples [start, stop) of each row; `common[i]`: what sample i begins with like the one before.

    What the samples at a cut have in common is laid out twice. Rows have no padding, so one that is cut early costs
    nothing: of the places that leave a row at least half full, the one with the least in common is taken.
    """
    start = 0
    while start < len(lengths):
        size, stop, halves = lengths[start], start + 1, []
        while stop < len(lengths) and size + lengths[stop] - common[stop] <= tokens:
            if 2 * size >= tokens:
                halves.append(stop)
            size += lengths[stop] - common[stop]
            stop += 1
        if stop < len(lengths):
            stop = min([*halves, stop], key=lambda at: (common[at], -at))
        yield start, stop
        start = stop


def _ids(batch: Batch) -> list[list[int]]:
    flat: list[int] = batch.ids.tolist()
    counts: list[int] = torch.bincount(batch.sequence, minlength=batch.samples).tolist()
    out, start = [], 0
    for count in counts:
        out.append(flat[start : start + count])
        start += count
    return out


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


class _Layout:
    """A row while it is filled. `path`: where each token of the last sample stands."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.ids: list[int] = []
        self.position: list[int] = []
        self.end: list[int] = []
        self.slots: list[int] = []
        self.path: list[int] = []

    def add(self, sample: int, ids: Sequence[int], common: int) -> None:
        """Lay the sample out after the tokens that it has in common with the one before."""
        self._close(common)
        self.path += range(len(self.ids), len(self.ids) + len(ids) - common)
        self.ids += ids[common:]
        self.position += range(common, len(ids))
        self.end += [0] * (len(ids) - common)
        self.slots += self.path
        self.samples.append(sample)

    def row(self) -> Row:
        """The row as it is."""
        self._close(0)
        return Row(tuple(self.samples), *map(torch.tensor, (self.ids, self.position, self.end, self.slots)))

    def _close(self, common: int) -> None:
        """Nothing to come sees the tokens of the path after `common`."""
        for slot in self.path[common:]:
            self.end[slot] = len(self.ids)
        del self.path[common:]
