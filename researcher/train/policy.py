"""A causal language model of transformers as a policy: the logprobs of a batch, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from researcher.train.attention import install, tiles
from researcher.train.batch import Batch
from researcher.train.logits import token_logprobs
from researcher.train.packing import Row, pack

CHUNK = 2**24
"""Logits that are computed at once, in numbers: tokens times vocabulary."""
KEPT = 2**25
"""Logits that a row keeps for the way back; with more, they are computed again there, chunk by chunk."""
ROUND = 128
"""What lengths are rounded up to where products on the CPU are not in float32: oneDNN keeps something of each shape.
Products of 240 lengths took 0.75 GB, rounded 0.04."""


class Scored(NamedTuple):
    """Logprobs and entropies of a batch, [N] each; `topk`: of the batch's candidates, [N, K]."""

    logprobs: Tensor
    entropy: Tensor | None = None
    topk: Tensor | None = None


class LanguagePolicy:
    """Scores batches with a `*ForCausalLM` of transformers, whole or with adapters, in float32 or under autocast.

    `tokens`: the length of a row, which memory grows with. The vocabulary's logits are computed for tokens that count
    alone. On the CPU a model that attends by torch's SDPA is made to attend by tiles; elsewhere rows have a dense mask,
    and cost their square.
    """

    def __init__(
        self, model: nn.Module, *, tokens: int = 2048, dtype: torch.dtype = torch.float32, share: bool = True
    ) -> None:
        self.model, self.tokens, self.dtype, self.share = model, tokens, dtype, share
        self.device = next(model.parameters()).device
        self.tiled = self.device.type == "cpu" and install(self._inner())

    def rows(self, batch: Batch) -> list[Row]:
        """The batch as rows."""
        return pack(batch, self.tokens, share=self.share)

    def score(self, batch: Batch, *, entropy: bool = False) -> Scored:
        """Logprobs of all tokens that count (the others: 0), computed row by row and put together."""
        parts = [(row, self.score_row(row, batch.select(row.samples), entropy=entropy)) for row in self.rows(batch)]
        order = _order(batch, [row for row, _ in parts]).to(self.device)
        logprobs = torch.cat([scored.logprobs for _, scored in parts])[order]
        entropies = [scored.entropy for _, scored in parts if scored.entropy is not None]
        topk = [scored.topk for _, scored in parts if scored.topk is not None]
        return Scored(
            logprobs, torch.cat(entropies)[order] if entropies else None, torch.cat(topk)[order] if topk else None
        )

    def most_likely(self, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """The ids of the k most likely tokens at each token that counts, the best first, and their logprobs, [N, k]
        each, without gradient; -1 and -inf elsewhere."""
        found = [self._most_likely_row(row, batch.select(row.samples), k) for row in self.rows(batch)]
        order = _order(batch, self.rows(batch)).to(self.device)
        return torch.cat([ids for ids, _ in found])[order], torch.cat([logprobs for _, logprobs in found])[order]

    @torch.no_grad()
    def _most_likely_row(self, row: Row, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        wanted = batch.counted()
        at = row.before(batch.position)[wanted].to(self.device)
        temperature = batch.temperature[batch.sequence[wanted]].to(self.device)
        vocabulary = self._head().weight.shape[0]
        if k > vocabulary:
            raise ValueError(f"the {k} most likely of {vocabulary} tokens")
        ids = torch.full((len(batch.ids), k), -1, device=self.device)
        logprobs = torch.full((len(batch.ids), k), -torch.inf, device=self.device)
        with self._computing():
            hidden = self._hidden(row)[at]
        places = wanted.nonzero().squeeze(-1).to(self.device)
        for part in _parts(len(at), vocabulary):
            best = (self._over_vocabulary(hidden[part]).float() / temperature[part, None]).log_softmax(-1).topk(k, -1)
            ids[places[part]], logprobs[places[part]] = best.indices, best.values
        return ids, logprobs

    def score_row(self, row: Row, batch: Batch, *, entropy: bool = False) -> Scored:
        """Logprobs of the tokens of one row's samples; `batch` holds these samples alone."""
        wanted = batch.counted()
        at = row.before(batch.position)[wanted].to(self.device)
        targets = _targets(batch)[wanted].to(self.device)
        temperature = batch.temperature[batch.sequence[wanted]].to(self.device)
        with self._computing():
            hidden = self._hidden(row)[at]
        vocabulary = int(self._head().weight.shape[0])
        again = torch.is_grad_enabled() and len(at) * vocabulary > KEPT
        found = [
            self._chunk(hidden[part], targets[part], temperature[part], again) for part in _parts(len(at), vocabulary)
        ]
        places = wanted.nonzero().squeeze(-1).to(self.device)
        blank = torch.zeros(len(batch.ids), targets.shape[1], dtype=torch.float32, device=self.device)
        logprobs = blank.index_put((places,), torch.cat([p for p, _ in found])) if found else blank
        topk = None if batch.topk_ids is None else logprobs[:, 1:]
        if not entropy:
            return Scored(logprobs[:, 0], None, topk)
        nothing = blank[:, 0].clone()
        entropies = nothing.index_put((places,), torch.cat([e for _, e in found])) if found else nothing
        return Scored(logprobs[:, 0], entropies, topk)

    def _hidden(self, row: Row) -> Tensor:
        """What the head is applied to, [L, width]."""
        device = self.device
        if self._rounds:
            row = row.padded(ROUND)
        if self.tiled:  # a mask of no size: a model that lets `tiles` fall fails, and does not see the wrong tokens
            how: dict[str, Any] = {"attention_mask": torch.zeros(1, 1, 0, 0, dtype=torch.bool), "tiles": tiles(row)}
        else:  # in numbers: the eager implementation would add a bool mask as it is
            seen = row.mask().to(device)
            how = {"attention_mask": torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf)}
        trunk = self._inner().base_model  # below the head, whatever the architecture calls it
        output = trunk(
            input_ids=row.ids[None].to(device), position_ids=row.position[None].to(device), use_cache=False, **how
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _chunk(self, hidden: Tensor, targets: Tensor, temperature: Tensor, again: bool) -> tuple[Tensor, Tensor]:
        if not again:
            return self._logprobs(hidden, targets, temperature)
        found: tuple[Tensor, Tensor] = checkpoint(self._logprobs, hidden, targets, temperature, use_reentrant=False)
        return found

    def _logprobs(self, hidden: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(self._over_vocabulary(hidden), targets, temperature)

    def _over_vocabulary(self, hidden: Tensor) -> Tensor:
        """Logits, [n, V]."""
        count = len(hidden)
        if self._rounds:
            hidden = nn.functional.pad(hidden, (0, 0, 0, -count % ROUND))
        with self._computing():
            logits: Tensor = self._head()(hidden)
        return logits[:count]

    @property
    def _rounds(self) -> bool:
        return self.dtype is not torch.float32 and self.device.type == "cpu"

    def _computing(self) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _inner(self) -> Any:
        """The model below its adapters."""
        base = getattr(self.model, "get_base_model", None)
        return self.model if base is None else base()

    def _head(self) -> Any:
        return self._inner().get_output_embeddings()


def _order(batch: Batch, rows: Sequence[Row]) -> Tensor:
    """Where each token of a batch is, [N], when its rows' samples are put one after another."""
    bounds = torch.searchsorted(batch.sequence, torch.arange(batch.samples + 1))
    places = [torch.arange(int(bounds[i]), int(bounds[i + 1])) for row in rows for i in row.samples]
    return torch.argsort(torch.cat(places))


def _targets(batch: Batch) -> Tensor:
    """What logprobs are wanted of at each token, [N, 1 + K]: itself, and a teacher's candidates."""
    own = batch.ids[:, None]
    return own if batch.topk_ids is None else torch.cat([own, batch.topk_ids.clamp(min=0)], -1)


def _parts(count: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, CHUNK // vocabulary)
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))
