"""Whether the trainer computes what a model computes: `refuse_misfit(net, vocabulary)`.

The trainer packs samples into rows under a mask of its own and applies the head to hidden states. An architecture that
looks at its input otherwise (windows, recurrent layers, scaled logits) would be trained on other probabilities than it
is sampled with, and nothing would say so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from researcher.errors import UserError
from researcher.train.batch import Batch
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample

SAME = 1e-3  # nats between two ways of computing the same logprob in float32
LENGTHS = (9, 13)  # tokens of the two samples, which share a row


def refuse_misfit(net: Any, vocabulary: int) -> None:
    """Raises UserError with why it cannot be trained here."""
    config = net.config.get_text_config()
    window, longest = getattr(config, "sliding_window", None), getattr(config, "max_position_embeddings", 0)
    if window and window < longest:
        raise UserError(f"layers of its model see {window} tokens back, and the trainer has no such layers.")
    rng = torch.Generator().manual_seed(0)
    lines = [torch.randint(0, vocabulary, (n,), generator=rng) for n in LENGTHS]
    try:
        with torch.no_grad():
            far = float((_packed(net, lines) - torch.cat([_alone(net, line) for line in lines])).abs().max())
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the trainer does not fit its model ({' '.join(str(error).split())[:200]}).") from None
    if not far < SAME:
        raise UserError(f"the trainer computes its logprobs otherwise than its model does (by up to {far:.2g}).")


def _packed(net: Any, lines: list[Tensor]) -> Tensor:
    samples = [
        Sample(run="", thread=str(i), task="", ids=tuple(ids.tolist()), mask=(False, *(True,) * (len(ids) - 1)))
        for i, ids in enumerate(lines)
    ]
    batch = Batch.of(samples)
    return LanguagePolicy(net).score(batch).logprobs[batch.position > 0]


def _alone(net: Any, ids: Tensor) -> Tensor:
    logits = net(ids[None]).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(-1, ids[1:, None])[:, 0]
