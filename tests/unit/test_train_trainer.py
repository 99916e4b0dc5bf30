"""The trainer on a small Qwen3 with random weights: packing, shared prefixes, splitting, resuming, learning."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from train_harness import network

from researcher.errors import UserError
from researcher.train.advantages import AdvantageConfig
from researcher.train.batch import Batch
from researcher.train.checkpoint import latest, save
from researcher.train.losses import LossConfig
from researcher.train.packing import pack
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample, Term
from researcher.train.trainer import Trainer, TrainerConfig

torch.set_num_threads(1)
VOCABULARY = 48


def model(seed: int = 0) -> Any:
    return network(seed, vocabulary=VOCABULARY, layers=2, scale=6.0)


def tree(seed: int, *, groups: int = 3, width: int = 4) -> list[Sample]:
    """Groups with a common prompt, of which half the members share their first sampled tokens too."""
    rng = random.Random(seed)
    samples = []
    for group in range(groups):
        prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(5, 12))]
        fork = [rng.randrange(VOCABULARY) for _ in range(4)]
        for member in range(width):
            said = (fork if member % 2 else []) + [rng.randrange(VOCABULARY) for _ in range(rng.randrange(2, 10))]
            tool = [rng.randrange(VOCABULARY) for _ in range(3)]
            end = [rng.randrange(VOCABULARY) for _ in range(2)]
            mask = [False] * len(prompt) + [True] * len(said) + [False] * 3 + [True] * 2
            samples.append(
                Sample(
                    run="r",
                    thread=f"{group}/{member}",
                    task=str(group),
                    ids=(*prompt, *said, *tool, *end),
                    mask=tuple(mask),
                    temperature=0.7 if group else 1.0,
                    terms=(Term("accuracy", float(member % 3 == 0)),),
                )
            )
    rng.shuffle(samples)
    return samples


def plain(net: Any, sample: Sample) -> torch.Tensor:
    """The logprobs of one sample alone, by the model's own forward."""
    ids = torch.tensor(sample.ids)[None]
    logits = net(input_ids=ids).logits[0, :-1] / sample.temperature
    found = logits.log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1)
    return torch.cat([torch.zeros(1), found]) * torch.tensor(sample.mask)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("tokens", [16, 60, 4096])
def test_packed_and_shared_rows_give_each_samples_own_logprobs(tokens: int, share: bool) -> None:
    net, samples = model(), tree(1)
    with torch.no_grad():
        scored = LanguagePolicy(net, tokens=tokens, share=share).score(Batch.of(samples), entropy=True)
    wanted = torch.cat([plain(net, sample) for sample in samples])
    torch.testing.assert_close(scored.logprobs, wanted, rtol=1e-4, atol=1e-5)
    assert scored.entropy is not None
    assert float(scored.entropy.min()) >= 0.0
    assert wanted.abs().max() > 1.0


def test_the_gradient_is_that_of_samples_one_by_one() -> None:
    net, samples = model(), tree(2)
    weights = torch.randn(sum(len(s.ids) for s in samples), generator=torch.Generator().manual_seed(0))
    LanguagePolicy(net, tokens=80).score(Batch.of(samples)).logprobs.mul(weights).sum().backward()
    ours = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    torch.cat([plain(net, sample) for sample in samples]).mul(weights).sum().backward()
    for mine, wanted in zip(ours, [p.grad for p in net.parameters() if p.grad is not None], strict=True):
        assert wanted is not None
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_a_shared_prefix_is_laid_out_once() -> None:
    samples = tree(3, groups=1, width=8)
    batch = Batch.of(samples)
    [row] = pack(batch, 10_000)
    [apart] = pack(batch, 10_000, share=False)
    assert len(apart.ids) == sum(len(s.ids) for s in samples)
    prefixes = {s.ids[: i + 1] for s in samples for i in range(len(s.ids))}
    assert len(row.ids) == len(prefixes)
    assert sorted(row.samples) == list(range(8))


def test_no_token_sees_what_is_not_before_it_in_its_own_sample() -> None:
    samples = tree(4)
    batch = Batch.of(samples)
    for row in pack(batch, 100):
        mask = row.mask()[0, 0]
        start = 0
        for index in row.samples:
            length = len(samples[index].ids)
            path = row.slots[start : start + length].tolist()
            start += length
            for position, slot in enumerate(path):
                assert mask[slot].nonzero().squeeze(-1).tolist() == path[: position + 1]


def config(**changes: Any) -> TrainerConfig:
    return TrainerConfig(**{"rate": 1e-3, "row_tokens": 64, **changes})


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.parameters]


def test_how_rows_are_cut_does_not_change_a_step() -> None:
    moved = []
    for tokens in (32, 4096):
        trainer = Trainer(LanguagePolicy(model(), tokens=tokens), config(clip=None))
        metrics = trainer.update(tree(5))
        moved.append((metrics[0], weights(trainer)))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-4, abs=1e-6)
    start = [p.detach() for p in model().parameters()]
    for a, b, before in zip(moved[0][1], moved[1][1], start, strict=True):
        assert (a - before).abs().max() > 1e-5
        # Adam divides by the gradient's size: where that is nearly 0 its sign is rounding, so the mass must agree.
        assert ((a - b).abs() > 1e-4).float().mean() < 0.01


def test_the_first_step_has_ratio_one_also_against_stored_logprobs() -> None:
    trainer = Trainer(LanguagePolicy(model()), config(minibatches=2))
    first, second = trainer.update(tree(6))
    assert first["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert second["ratio"] != pytest.approx(1.0, abs=1e-6)


def test_it_learns_what_is_rewarded() -> None:
    samples = tree(7)
    trainer = Trainer(LanguagePolicy(model()), config(rate=3e-3, advantages=AdvantageConfig(scale="none")))
    batch = Batch.of(samples)
    good = torch.tensor([s.reward > 0 for s in samples])[batch.sequence] & batch.mask
    before = trainer.policy.score(batch).logprobs.detach()
    for _ in range(5):
        trainer.update(samples)
    after = trainer.policy.score(batch).logprobs.detach()
    assert (after - before)[good].mean() > 0.1
    assert (after - before)[batch.mask & ~good].mean() < (after - before)[good].mean() - 0.1


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_resumed_training_is_the_same_to_the_bit(tmp_path: Path, cut: int) -> None:
    how = config(minibatches=2, epochs=2, warmup=3, schedule="cosine", steps=40, loss=LossConfig.preset("grpo"))
    whole = Trainer(LanguagePolicy(model()), how)
    for seed in range(4):
        whole.update(tree(seed))
    first = Trainer(LanguagePolicy(model()), how)
    for seed in range(cut):
        first.update(tree(seed))
    save(tmp_path, first.steps, first.state())
    second = Trainer(LanguagePolicy(model(seed=9)), how)
    state = latest(tmp_path)
    assert state is not None
    second.load_state(state)
    for seed in range(cut, 4):
        second.update(tree(seed))
    assert second.steps == whole.steps == 16
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))


def test_checkpoints_are_whole_and_few(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None
    for step in range(1, 5):
        save(tmp_path, step, {"steps": step}, keep=2)
    (tmp_path / "step-00000009.part").write_bytes(b"half")
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["step-00000003.pt", "step-00000004.pt"]
    assert latest(tmp_path) == {"steps": 4}
    (tmp_path / "step-00000005.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"step-00000005\.pt cannot be read"):
        latest(tmp_path)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    trainer = Trainer(LanguagePolicy(model()), config())
    state = trainer.state()
    state["parameters"] = state["parameters"][:-1]
    with pytest.raises(ValueError, match="other shapes"):
        trainer.load_state(state)


def test_a_kl_term_needs_a_reference() -> None:
    trainer = Trainer(LanguagePolicy(model()), config(loss=LossConfig.preset("grpo", beta=0.1)))
    with pytest.raises(ValueError, match="no reference model"):
        trainer.update(tree(8))
    with_one = Trainer(
        LanguagePolicy(model()), config(loss=LossConfig.preset("grpo", beta=0.1)), reference=LanguagePolicy(model())
    )
    assert with_one.update(tree(8))[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert with_one.update(tree(8))[0]["kl"] > 1e-6


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    trainer = Trainer(LanguagePolicy(model()), config())
    before = weights(trainer)
    batch = Batch.of(tree(9))
    batch.advantages = torch.full((len(batch.ids),), float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        trainer.step(batch)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer), before, strict=True))
