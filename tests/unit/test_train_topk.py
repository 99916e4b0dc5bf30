"""Distillation from a teacher's most likely tokens: the loss against its formula and TRL's, and what it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from researcher.train.topk import Tail, topk_kl

torch.set_num_threads(1)
TAILS: list[Tail] = ["bucket", "renormalise"]


def distributions(seed: int, places: int = 40, words: int = 24) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logprobs over a whole vocabulary, [M, V] each."""
    draws = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(places, words, generator=draws) * 2 for _ in range(2))
    return student.log_softmax(-1), teacher.log_softmax(-1)


def formula(student: Tensor, teacher: Tensor, ids: Tensor, tail: Tail) -> Tensor:
    """By probabilities in float64, place by place."""
    found = []
    for p, q, chosen in zip(student.double().exp(), teacher.double().exp(), ids, strict=True):
        p, q = p[chosen], q[chosen]
        if tail == "renormalise":
            p, q = p / p.sum(), q / q.sum()
        else:
            p, q = (torch.cat([side, 1.0 - side.sum(0, keepdim=True)]) for side in (p, q))
        found.append((q * (q / p).log()).sum())
    return torch.stack(found)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_kl_is_that_of_its_formula(tail: Tail, k: int) -> None:
    student, teacher = distributions(k)
    top, ids = teacher.topk(k, -1)
    found = topk_kl(student.gather(-1, ids), top, tail)
    torch.testing.assert_close(found.double(), formula(student, teacher, ids, tail), rtol=1e-5, atol=1e-6)
    assert float(found.max()) > (0.1 if k > 1 or tail == "bucket" else -1.0)


def test_a_bucket_is_a_lower_bound_that_grows_with_k_to_the_whole() -> None:
    student, teacher = distributions(3)
    whole = (teacher.exp() * (teacher - student)).sum(-1)
    before = torch.zeros(len(whole))
    for k in (1, 2, 4, 8, 16, 24):
        top, ids = teacher.topk(k, -1)
        found = topk_kl(student.gather(-1, ids), top, "bucket")
        assert (found >= before - 1e-6).all()
        before = found
    torch.testing.assert_close(before, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tail", TAILS)
def test_value_and_gradient_are_those_of_trl(tail: Tail) -> None:
    """TRL's AsyncDistillationTrainer with beta 0, on the same hidden states, at another temperature than 1."""
    oracle: Any = pytest.importorskip("trl.experimental.async_distillation.async_distillation_trainer")
    draws = torch.Generator().manual_seed(1)
    hidden, head = torch.randn(30, 16, generator=draws), torch.randn(40, 16, generator=draws)
    _, teacher = distributions(2, 30, 40)
    top, ids = teacher.topk(6, -1)
    known = torch.ones_like(ids, dtype=torch.bool)
    known[3, 4:] = known[7, 1:] = False  # a server that told fewer
    grads, values = [], []
    for ours in (True, False):
        x = hidden.clone().requires_grad_()
        if ours:
            logprobs = (x @ head.T / 0.7).log_softmax(-1).gather(-1, ids)
            loss = topk_kl(logprobs, top.masked_fill(~known, -torch.inf), tail).sum() / 30
        else:
            loss = (
                oracle._jsd_loss_chunk(
                    x,
                    head,
                    None,
                    1.0,
                    None,
                    ids.masked_fill(~known, -1),
                    top,
                    known,
                    0.0,
                    0.7,
                    tail == "bucket",
                    None,
                    1,
                )[0]
                / 30
            )
        loss.backward()
        grads.append(x.grad)
        values.append(loss.detach())
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)
    assert grads[0] is not None
    assert float(grads[0].abs().max()) > 1e-3
