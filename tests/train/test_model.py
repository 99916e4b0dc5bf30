"""The model and its training step against the numeric oracles: torch's attention and transformers' Qwen3."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from researcher.train.embedded import data
from researcher.train.embedded.tasks.example import Example, Message, say, system, user

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trainer")]


def test_attention_and_its_gradients_are_torchs() -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from researcher.train.embedded.attention import attend

    torch.manual_seed(0)
    for length in (5, 128, 300):
        q, k, v = (torch.randn(3, length, 32, requires_grad=True) for _ in range(3))
        grad = torch.randn(3, length, 32)
        ours = attend(q * 32**-0.5, k, v)
        theirs = scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        for a, b in zip(
            torch.autograd.grad(ours, (q, k, v), grad), torch.autograd.grad(theirs, (q, k, v), grad), strict=True
        ):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_logits_are_those_of_transformers(folder: Path) -> None:
    import torch
    from transformers import Qwen3ForCausalLM

    from researcher.train.embedded.model import Reasoner, Shape

    theirs = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = Reasoner(Shape(), dtype=torch.float32)
    state = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.weight"}
    ours.load_state_dict(state)
    tokens = torch.randint(0, 1024, (2, 150), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=2e-3, rtol=1e-3)


def test_orthogonal_makes_all_singular_values_near_one() -> None:
    import torch

    from researcher.train.embedded.muon import orthogonal

    torch.manual_seed(0)
    for shape in ((2, 48, 96), (2, 96, 48)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
        assert float(values.min()) > 0.4
        assert float(values.max()) < 1.4


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    from researcher.train.embedded.train import Plan

    now = time.time()
    return Plan(tmp_path, now, now + 3600, batch_tokens=1024, threads=1, compiled=False, max_steps=6, save_every=0.0)


def test_training_lowers_the_loss_and_goes_on_from_a_checkpoint(folder: Path, plan: Any) -> None:
    from dataclasses import replace

    import torch
    from tokenizers import Tokenizer

    from researcher.train.embedded.model import Shape
    from researcher.train.embedded.train import Run, batches, train

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    shape = Shape(width=64, layers=2, heads=2, inner=96)
    tokens, weights = next(batches(tokenizer, plan, shard=99))
    before = Run(plan, tokenizer, shape).model.loss(tokens, weights).item()
    run = train(replace(plan, max_steps=12), tokenizer, shape)
    assert run.step == 12
    assert run.model.loss(tokens, weights).item() < before - 0.3
    (plan.folder / "final.pt").rename(plan.folder / "last.pt")
    resumed = Run(plan, tokenizer, shape)
    resumed.load(plan.folder / "last.pt")
    assert resumed.step == 12
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), run.model.parameters(), strict=True))


def test_the_rate_warms_up_holds_and_falls(plan: Any) -> None:
    assert plan.rate(0, 0.0) < 0.05
    assert plan.rate(100, plan.stable - 0.01) == 1.0
    assert plan.rate(10_000, (1 + plan.stable) / 2) == pytest.approx(0.5)
    assert plan.rate(10_000, 1.0) == plan.floor


def test_rows_weigh_the_models_own_tokens(folder: Path) -> None:
    from tokenizers import Tokenizer

    from researcher.train.embedded.train import DECISION_WEIGHT, NUMBER_WEIGHT, REST_WEIGHT, Row

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    example = data.held_out("two_hops", 1)[0]
    row = Row(tokenizer, example)
    own = tokenizer.decode(
        [i for i, w in zip(row.ids, row.weights, strict=True) if w >= 1.0], skip_special_tokens=False
    )
    assert set(row.weights) == {1.0, REST_WEIGHT, NUMBER_WEIGHT, DECISION_WEIGHT}
    assert own.startswith("<think>\nFind")
    assert own.endswith("</answer><|im_end|>")
    assert own.count("<|im_end|>") == sum(message["role"] == "assistant" for message in example.messages)
    assert "<tool_response>" not in own


@pytest.mark.parametrize(
    ("thought", "name", "decisive"),
    [
        ("Q: Find the seat of X.\nX is based in Y. [7]\nSo Y.", "DECISION_WEIGHT", "X"),
        ("Q: Find the seat of X.\nX is based in Y. [7]\nSo Y.", "NUMBER_WEIGHT", "7]"),
        ("Q: Find the seat of X.\nNot there. Read x.md.", "DECISION_WEIGHT", "Not Read"),
        ("Q: Find the seat of X.\nNot there. The documents do not say.", "DECISION_WEIGHT", "Not The"),
        ("82 A (2), 79 B (2): 8>7; larger 82 A, smaller 79 B; larger: 82 A.", "COMPARED_WEIGHT", "228>7"),
        ("82 A (2), 179 B (3): 2<3 digits; larger 179 B.", "COMPARED_WEIGHT", "232<3"),
    ],
)
def test_what_an_answer_hangs_on_weighs_more(folder: Path, thought: str, name: str, decisive: str) -> None:
    from tokenizers import Tokenizer

    from researcher.train.embedded import train
    from researcher.train.embedded.train import Row

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    messages: list[Message] = [system("s"), user("Where is X based?"), say("<answer>Y</answer>", thought)]
    row = Row(tokenizer, Example("one_hop", messages, (), "Y", {}))
    heavy = [i for i, w in zip(row.ids, row.weights, strict=True) if w == getattr(train, name)]
    assert tokenizer.decode(heavy) == decisive


def test_a_servers_empty_block_of_thought_is_not_learned(folder: Path) -> None:
    from tokenizers import Tokenizer

    from researcher.train.embedded.tasks.steps import GIVEN_THOUGHT
    from researcher.train.embedded.train import VERDICT_WEIGHTS, Row

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    example = data.held_out("process", 1)[0]
    example.messages[-1]["reasoning_content"] = ""
    row = Row(tokenizer, example)
    idle = [i for i, w in zip(row.ids, row.weights, strict=True) if w == 0]
    own = [i for i, w in zip(row.ids, row.weights, strict=True) if w >= 1]
    assert tokenizer.decode(idle, skip_special_tokens=False) == GIVEN_THOUGHT
    assert tokenizer.decode(own, skip_special_tokens=False) == f"{example.answer}<|im_end|>"
    assert max(row.weights) == VERDICT_WEIGHTS["process"]


def test_a_run_begins_with_the_weights_of_a_gguf(recipe: Path, plan: Any) -> None:
    from dataclasses import replace

    import torch

    from researcher.train.embedded.convert import from_bits, read_gguf
    from researcher.train.embedded.model import Shape
    from researcher.train.embedded.train import Run

    packed = read_gguf(recipe)
    run = Run(replace(plan, init=recipe), packed.tokenizer, Shape())
    for (name, parameter), mean in zip(run.model.named_parameters(), run.mean, strict=True):
        assert torch.equal(parameter.detach(), torch.from_numpy(from_bits(packed.weights[name])))
        assert torch.equal(parameter, mean)
