"""KL to a teacher of which only the most likely tokens are known: `topk_kl(student, teacher, "bucket")`.

Forward KL, sum_v q(v) (log q(v) - log p(v)) with q the teacher and p the student (Hinton et al. 2015; Kim & Rush 2016),
needs q of the whole vocabulary. A server tells K tokens, so something must become of the rest:

- `bucket`: all other tokens are one outcome, with the mass that is left to each side. By the log-sum inequality this is
  a lower bound of the KL over the whole vocabulary, 0 only where the student gives the K tokens what the teacher does.
- `renormalise`: both sides are divided by their mass on the K tokens. What the student puts elsewhere costs nothing:
  common, and biased for a small K (Anshumann et al. 2025, Sparse Logit Sampling).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Tail = Literal["bucket", "renormalise"]

LEFT = 1e-7
"""The least mass of the rest: a K that is nearly all of the vocabulary leaves less than float32 can tell from none."""


def topk_kl(student: Tensor, teacher: Tensor, tail: Tail) -> Tensor:
    """The KL at each of M places, nats, [M], from logprobs of the same K tokens, [M, K] each.

    A place with fewer has -inf for the teacher's others, and needs one that is finite.
    """
    known = teacher > -torch.inf
    student = student.masked_fill(~known, -torch.inf)
    if tail == "bucket":
        q, p = (torch.cat([side, _rest(side)], -1) for side in (teacher, student))
        known = torch.cat([known, known[:, :1] | True], -1)
    else:
        q, p = (side.log_softmax(-1) for side in (teacher, student))
    gap = torch.where(known, q, 0.0) - torch.where(known, p, 0.0)
    return (q.exp() * gap).sum(-1)


def _rest(logprobs: Tensor) -> Tensor:
    """The logprob of any other token, [M, 1]: log(1 - sum p)."""
    mass = torch.logsumexp(logprobs, -1, keepdim=True).clamp(max=-LEFT)
    return torch.log(-torch.expm1(mass))
