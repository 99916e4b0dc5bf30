"""Distillation from a teacher's most likely tokens: the loss against its formula and TRL's, and what it learns."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_harness import network

from researcher.errors import UserError
from researcher.train.losses import Denominators, LossConfig, compute_loss
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample
from researcher.train.sft import SFTConfig, fine_tune
from researcher.train.stages.topk import TopKStage
from researcher.train.teacher import LocalTeacher, read_targets, teacher_kl, topk_batch, write_targets
from researcher.train.teacher_server import most_likely
from researcher.train.topk import Tail, topk_kl
from researcher.train.trainer import Trainer, TrainerConfig

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


def tiny(seed: int, scale: float = 6.0) -> Any:
    return network(seed, vocabulary=48, scale=scale)


def traces(count: int, seed: int = 0) -> list[Sample]:
    """Samples of a question of three tokens and up to eight that were said, with a tool's in between."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        said = [rng.randrange(48) for _ in range(rng.randrange(3, 9))]
        ids, mask = (1, 2, 3 + i % 4, *said, 5, 6, rng.randrange(48)), (False,) * 3 + (True,) * len(said) + (False,) * 2
        made.append(Sample(run="r", thread=str(i), task=str(i), ids=ids, mask=(*mask, True)))
    return made


def test_a_local_teacher_tells_what_its_network_says() -> None:
    """Rows that are packed and share their beginnings against one forward pass for each sample."""
    net, samples = tiny(1), traces(9)
    found = LocalTeacher(LanguagePolicy(net, tokens=40), 5, 0.5).targets_of(samples)
    for sample, target in zip(samples, found, strict=True):
        with torch.no_grad():
            logits = net(input_ids=torch.tensor([sample.ids])).logits[0, :-1]
        wanted = (logits / 0.5).log_softmax(-1)[torch.tensor(sample.mask[1:])].topk(5, -1)
        torch.testing.assert_close(torch.from_numpy(target.logprobs), wanted.values, rtol=1e-4, atol=1e-5)
        assert torch.equal(torch.from_numpy(target.ids).long(), wanted.indices)


def test_the_step_s_loss_is_the_mean_kl_however_its_rows_are_cut() -> None:
    samples = traces(8)
    targets = LocalTeacher(LanguagePolicy(tiny(1)), 6).targets_of(samples)
    wanted, gradients = [], []
    for tokens in (16, 4096):
        net = tiny(0)
        how = TrainerConfig(rate=1e-9, clip=None, row_tokens=tokens, weight_decay=0.0)
        trainer = Trainer(LanguagePolicy(net, tokens=tokens), how)
        [metrics] = trainer.learn(topk_batch(samples, targets, 1.0))
        wanted.append(metrics["loss"])
        gradients.append(metrics["gradient"])
    assert wanted[0] == pytest.approx(wanted[1], rel=1e-5)
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)
    whole = []
    for sample, target in zip(samples, targets, strict=True):
        with torch.no_grad():
            logprobs = tiny(0)(input_ids=torch.tensor([sample.ids])).logits[0, :-1].log_softmax(-1)
        mine = logprobs[torch.tensor(sample.mask[1:])].gather(-1, torch.from_numpy(target.ids).long())
        whole.append(topk_kl(mine, torch.from_numpy(target.logprobs), "bucket"))
    assert wanted[0] == pytest.approx(float(torch.cat(whole).mean()), rel=1e-4)
    assert wanted[0] > 0.1


def test_it_adds_up_with_the_other_components_over_parts_of_a_step() -> None:
    samples = traces(4)
    targets = LocalTeacher(LanguagePolicy(tiny(1)), 6).targets_of(samples)
    batch = replace(topk_batch(samples, targets, 1.0), cross_entropy=torch.ones(sum(len(s.ids) for s in samples)))
    policy, config = LanguagePolicy(tiny(0)), LossConfig(tail="renormalise")
    whole = Denominators.of(batch, config)
    assert whole.topk == sum(s.sampled for s in samples)
    at_once = compute_loss(batch, policy.score(batch), config, whole)
    assert set(at_once.parts) == {"topk", "cross_entropy"}
    parts = [batch.select(part) for part in ([2, 0], [3], [1])]
    apart = [compute_loss(part, policy.score(part), config, whole) for part in parts]
    assert sum((Denominators.of(part, config) for part in parts), Denominators()) == whole
    assert sum(float(loss.value.detach()) for loss in apart) == pytest.approx(float(at_once.value.detach()), rel=1e-5)


@pytest.mark.parametrize("tail", TAILS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(tail: Tail) -> None:
    samples, net = traces(6), tiny(0)
    targets = LocalTeacher(LanguagePolicy(net), 6).targets_of(samples)
    trainer = Trainer(LanguagePolicy(net), TrainerConfig(rate=1e-9, loss=LossConfig(tail=tail)))
    [metrics] = trainer.learn(topk_batch(samples, targets, 1.0))
    assert metrics["loss"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["gradient"] == pytest.approx(0.0, abs=1e-4)


def test_held_out_kl_to_the_teacher_falls(tmp_path: Path) -> None:
    """Over the whole vocabulary, on traces that are not learned from; six tokens of 48 teach it."""
    student, samples = tiny(0), traces(240)
    learned, watched = samples[:200], samples[200:]
    teacher = LanguagePolicy(tiny(1, 12.0))
    targets = LocalTeacher(teacher, 6).targets_of(learned)
    whole = topk_batch(watched, LocalTeacher(teacher, 48).targets_of(watched), 1.0)
    before = teacher_kl(LanguagePolicy(student), whole, "bucket")
    figures = fine_tune(
        student, learned, SFTConfig(batch=32, rate=3e-3, clip=None), folder=tmp_path, steps=60,
        make=lambda chosen: topk_batch([learned[i] for i in chosen], [targets[i] for i in chosen], 1.0),
    )  # fmt: skip
    after = teacher_kl(LanguagePolicy(student), whole, "bucket")
    assert figures["loss_last"] < 0.5 * figures["loss_first"]
    assert after < 0.7 * before, (before, after)


def test_targets_survive_their_file(tmp_path: Path) -> None:
    targets = LocalTeacher(LanguagePolicy(tiny(1)), 3).targets_of(traces(5))
    write_targets(tmp_path / "t.npz", targets)
    again = read_targets(tmp_path / "t.npz")
    assert len(again) == 5
    for mine, theirs in zip(targets, again, strict=True):
        assert (mine.ids == theirs.ids).all()
        assert (mine.logprobs == theirs.logprobs).all()


def test_of_a_server_s_words_the_best_that_the_student_knows_are_kept() -> None:
    told = {
        "7": {"logprob": -0.5, "rank": 1}, "3": {"logprob": -1.5, "rank": 2}, "90": {"logprob": -2.0, "rank": 3},
        "5": {"logprob": float("nan"), "rank": 4}, "11": {"logprob": -9.0, "rank": 2000},
    }  # fmt: skip
    assert most_likely(told, 4, 48) == [(7, -0.5), (3, -1.5)]


def test_a_temperature_that_a_server_cannot_tell_is_refused() -> None:
    with pytest.raises(UserError, match="temperature of 2 needs a teacher that is weights here"):
        TopKStage(data=("given",), teacher="http://h/v1#m", temperature=2.0).check()
    TopKStage(data=("given",), temperature=2.0).check()
