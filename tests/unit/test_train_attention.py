"""Attention by tiles and logprobs with a gradient of their own, against the plain formulas."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from researcher.train.attention import LARGEST, tiles
from researcher.train.batch import Batch
from researcher.train.logits import token_logprobs
from researcher.train.packing import pack
from researcher.train.policy import ROUND, LanguagePolicy
from researcher.train.sample import Sample

torch.set_num_threads(1)
VOCABULARY = 32


def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    made = Qwen3ForCausalLM(shape).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    return made


def batch() -> Batch:
    """Trees of which the parts are shorter and longer than a tile, and a lone long sample."""
    rng = random.Random(0)

    def some(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    paths = [some(2 * LARGEST + 7)]
    for prompt, fork, reply in ((5, 3, 6), (150, 40, 50), (40, 0, 140)):
        start, middle = some(prompt), some(fork)
        paths += [start + (middle if member % 2 else []) + some(reply + member) for member in range(4)]
    return Batch.of(
        [
            Sample(run="r", thread=str(i), task="t", ids=tuple(ids), mask=(False,) * 4 + (True,) * (len(ids) - 4))
            for i, ids in enumerate(paths)
        ]
    )


@pytest.mark.parametrize("share", [True, False])
def test_tiles_let_through_what_the_mask_lets_through(share: bool) -> None:
    for row in pack(batch(), 900, share=share):
        found = tiles(row)
        assert [tile.start for tile in found] == [0, *(tile.stop for tile in found[:-1])]
        assert found[-1].stop == len(row.ids)
        dense = torch.zeros(len(row.ids), len(row.ids), dtype=torch.bool)
        for tile in found:
            keys = torch.cat([torch.arange(a, b) for a, b in tile.runs])
            dense[tile.start : tile.stop, keys] = tile.mask[0, 0] == 0
        assert torch.equal(dense, row.mask()[0, 0])


def test_tiles_compute_little_that_nobody_sees() -> None:
    [row] = pack(batch(), 10_000)
    covered = sum(tile.mask.numel() for tile in tiles(row))
    visible = int(row.mask().sum())
    assert visible <= covered < 1.7 * visible < 0.5 * len(row.ids) ** 2


def scored(net: Qwen3ForCausalLM, *, tiled: bool) -> tuple[Tensor, list[Tensor]]:
    policy = LanguagePolicy(net, tokens=900)
    assert policy.tiled
    policy.tiled = tiled
    logprobs = policy.score(batch()).logprobs
    net.zero_grad()
    weights = torch.randn(len(logprobs), generator=torch.Generator().manual_seed(1))
    (logprobs * weights).sum().backward()  # type: ignore[no-untyped-call]
    return logprobs.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]


def test_tiles_give_values_and_gradients_of_the_dense_mask() -> None:
    net = model()
    wanted, gradients = scored(net, tiled=False)
    found, ours = scored(net, tiled=True)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(ours) == len(gradients) > 10
    for mine, theirs in zip(ours, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_tiles_go_with_mixed_precision() -> None:
    net = model()
    exact, _ = scored(net, tiled=True)
    policy = LanguagePolicy(net, tokens=900, dtype=torch.bfloat16)
    found = policy.score(batch()).logprobs
    assert found.dtype is torch.float32
    assert 0.0 < float((found.detach() - exact).abs().mean()) < 0.1
    net.zero_grad()
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("tiled", [True, False])
def test_rows_of_rounded_length_say_the_same(tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()
    lengths: set[int] = set()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, given, out: lengths.add(out.shape[-2]))
    wanted, gradients = scored(net, tiled=tiled)
    assert any(length % ROUND for length in lengths)
    lengths.clear()
    monkeypatch.setattr(LanguagePolicy, "_rounds", True)
    found, ours = scored(net, tiled=tiled)
    assert lengths
    assert not any(length % ROUND for length in lengths)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(ours, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_only_products_in_less_than_float32_are_rounded() -> None:
    assert LanguagePolicy(model(), dtype=torch.bfloat16)._rounds
    assert not LanguagePolicy(model())._rounds


def test_what_is_called_without_tiles_attends_as_before() -> None:
    net, ids = model(), torch.randint(0, VOCABULARY, (2, 20))
    before = net(input_ids=ids).logits
    LanguagePolicy(net)
    assert torch.equal(net(input_ids=ids).logits, before)
    padded = torch.ones_like(ids)
    padded[0, :5] = 0
    assert torch.equal(
        net(input_ids=ids, attention_mask=padded).logits, model()(input_ids=ids, attention_mask=padded).logits
    )


def test_a_model_that_lets_tiles_fall_fails_loudly() -> None:
    net = model()
    policy = LanguagePolicy(net)
    net.set_attn_implementation("eager")
    with pytest.raises(RuntimeError):
        policy.score(batch())


def test_an_implementation_chosen_by_hand_stays() -> None:
    net = model()
    net.set_attn_implementation("eager")
    policy = LanguagePolicy(net)
    assert not policy.tiled
    torch.testing.assert_close(policy.score(batch()).logprobs, LanguagePolicy(model()).score(batch()).logprobs)


@pytest.mark.parametrize("kept", [0, 10**9])
def test_logits_kept_or_computed_again_give_one_gradient(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = scored(model(), tiled=True)
    monkeypatch.setattr("researcher.train.policy.KEPT", kept)
    monkeypatch.setattr("researcher.train.policy.CHUNK", 50 * VOCABULARY)
    found = scored(model(), tiled=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_logprobs_entropies_and_their_gradients_are_those_of_the_formulas() -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(7, 11)).double().requires_grad_()
    targets, temperature = torch.randint(0, 11, (7, 3)), torch.rand(7) + 0.5
    targets[0] = 2  # a candidate may be the token itself
    share = (logits / temperature[:, None]).log_softmax(-1)
    wanted = share.gather(-1, targets), -(share.exp() * share).sum(-1)
    up = torch.randn(7, 3).double(), torch.randn(7).double()
    for chosen in ((0,), (1,), (0, 1)):
        single = logits.detach().float().requires_grad_()
        found = token_logprobs(single, targets, temperature)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
        sum((found[i] * up[i]).sum() for i in chosen).backward()  # type: ignore[union-attr]
        [gradient] = torch.autograd.grad(
            sum((wanted[i] * up[i]).sum() for i in chosen),
            logits,
            retain_graph=True,  # type: ignore[arg-type]
        )
        assert single.grad is not None
        torch.testing.assert_close(single.grad.double(), gradient, rtol=1e-4, atol=1e-5)


def test_a_probability_of_zero_has_no_part_in_the_entropy() -> None:
    logits = torch.tensor([[0.0, 200.0, -torch.inf]]).clamp(min=-1e30).requires_grad_()
    _, entropy = token_logprobs(logits, torch.tensor([[1]]), torch.ones(1))
    entropy.sum().backward()  # type: ignore[no-untyped-call]
    assert entropy.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_rows_of_one_sample_are_one_path() -> None:
    [row] = pack(batch().select([0]), 10_000)
    assert all(tile.runs == [(0, tile.stop)] for tile in tiles(row))


def test_rows_are_cut_between_groups_where_they_are_half_full() -> None:
    prompts = [[group] * 20 for group in range(3)]
    paths = [prompt + [10 + member] * 10 for prompt in prompts for member in range(4)]
    samples = [
        Sample(run="r", thread=str(i), task="t", ids=tuple(ids), mask=(False,) * 20 + (True,) * 10)
        for i, ids in enumerate(paths)
    ]
    rows = pack(Batch.of(samples), 90)  # a group is 60 tokens, and 90 would hold one and a half
    assert [row.samples for row in rows] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert sum(len(row.ids) for row in rows) == 3 * 60
    cut = pack(Batch.of(samples), 45)  # a group does not fit, and its prompt is laid out twice
    assert max(len(row.ids) for row in cut) <= 45
    assert sorted(i for row in cut for i in row.samples) == list(range(12))
