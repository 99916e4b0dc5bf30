"""A process reward model with a head: what is learned where, how well, and what is saved."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from researcher.errors import UserError
from researcher.models.embedded import SHIPPED
from researcher.train.embedded.convert import Packed, export_hf
from researcher.train.head import (
    TAG,
    HeadPolicy,
    HeadRenderer,
    Solution,
    auc,
    head_batch,
    judge,
    make_head,
    save_head,
    solutions,
)
from researcher.train.process import Labelled
from researcher.train.recipe import load_recipe
from researcher.train.sft import SFTConfig, fine_tune
from researcher.train.stages.head import HeadStage, read_labels
from researcher.train.trainer import Trainer, TrainerConfig
from researcher.train.weights import load_net, read_packed

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def packed() -> Packed:
    return read_packed(SHIPPED)


@pytest.fixture(scope="module")
def renderer(packed: Packed) -> HeadRenderer:
    return HeadRenderer(packed.tokenizer, packed.chat_template)


def test_solutions_are_the_longest_beginnings_and_each_label_counts_once() -> None:
    labels = [
        ("q", Labelled(("a",), 0.25, 4)), ("q", Labelled(("a", "b"), 0.0, 4)), ("q", Labelled(("a", "c"), 1.0, 4)),
        ("q", Labelled(("a", "c", "d"), 1.0, 1)), ("r", Labelled(("x", "y"), 0.5, 2)),
    ]  # fmt: skip
    assert solutions(labels, "soft") == [
        Solution("q", ("a", "b"), (0.25, 0.0)),
        Solution("q", ("a", "c", "d"), (None, 1.0, 1.0)),
        Solution("r", ("x", "y"), (None, 0.5)),
    ]
    assert solutions(labels, "hard")[0].labels == (1.0, 0.0)


def test_a_solution_is_rendered_as_the_server_does_with_labels_at_its_tags(renderer: HeadRenderer) -> None:
    made = renderer.sample(Solution("Make 5.", ("2+3=5 left 5\n", "<answer>5</answer>"), (1.0, None)))
    text = renderer.tokenizer.decode(list(made.ids), skip_special_tokens=False)
    assert "<|im_start|>user\nMake 5.<|im_end|>\n" in text
    assert f"2+3=5 left 5{TAG}<answer>5</answer>{TAG}" in text
    batch = head_batch([made])
    assert batch.labels is not None
    assert batch.cross_entropy is not None
    assert batch.ids[batch.mask].tolist() == [renderer.tag, renderer.tag]
    assert batch.labels[batch.mask].tolist()[0] == 1.0
    assert math.isnan(batch.labels[batch.mask].tolist()[1])
    assert batch.cross_entropy.sum() == 1.0
    assert renderer.tag == renderer.vocabulary - 1


@pytest.mark.parametrize("tokens", [32, 4096])
def test_the_loss_is_cross_entropy_at_the_tags_alone(packed: Packed, renderer: HeadRenderer, tokens: int) -> None:
    """Against the model's own forward, sample by sample, with soft labels and shared beginnings."""
    net: Any = make_head(load_net(packed), renderer.vocabulary)
    torch.manual_seed(0)
    with torch.no_grad():
        net.score.weight.normal_(0.0, 0.5)
    made = [
        renderer.sample(Solution("Make 5.", ("2+3=5", "5+1=6"), (0.75, 0.0))),
        renderer.sample(Solution("Make 5.", ("2+3=5", "5-1=4", "bad"), (None, 0.5, 0.0))),
        renderer.sample(Solution("Make 7.", ("2+5=7",), (1.0,))),
    ]
    [metrics] = Trainer(HeadPolicy(net, tokens=tokens), TrainerConfig(rate=1e-9, clip=None)).learn(head_batch(made))
    found = []
    for sample in made:
        logits = net(input_ids=torch.tensor([sample.ids])).logits[0][torch.tensor(sample.mask)]
        for row, label in zip(logits.log_softmax(-1), sample.steps, strict=True):
            if not math.isnan(label):
                found.append(-(label * row[1] + (1.0 - label) * row[0]))
    assert len(found) == 5
    assert metrics["loss"] == pytest.approx(float(torch.stack(found).mean().detach()), rel=1e-4)
    torch.stack(found).mean().backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None))
    assert metrics["gradient"] == pytest.approx(norm, rel=1e-3)


def digits(count: int, seed: int) -> list[Solution]:
    """Solutions of three steps of three digits; a nine spoils its step and those after it."""
    rng, made = random.Random(seed), []
    for number in range(count):
        steps = tuple(" ".join(str(rng.randrange(10)) for _ in range(3)) for _ in range(3))
        labels = tuple(float(not any("9" in step for step in steps[: n + 1])) for n in range(3))
        made.append(Solution(f"{seed} {number}?", steps, labels))
    return made


def test_it_tells_good_steps_from_bad_ones_of_questions_it_has_not_seen(renderer: HeadRenderer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=renderer.vocabulary - 1, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    learned, watched = ([renderer.sample(s) for s in digits(count, seed)] for count, seed in ((200, 0), (80, 1)))
    policy = HeadPolicy(make_head(Qwen3ForCausalLM(shape), renderer.vocabulary))
    fine_tune(
        policy.model, learned, SFTConfig(batch=32, rate=1e-2, clip=None), folder=tmp_path, steps=40, policy=policy,
        make=lambda chosen: head_batch([learned[i] for i in chosen]),
    )  # fmt: skip
    labels = [label for sample in learned for label in sample.steps]
    found = judge(policy, watched, sum(labels) / len(labels))
    assert found["auc"] > 0.8, found
    assert found["accuracy"] > found["accuracy_prior"] + 0.1, found
    assert found["cross_entropy"] < found["cross_entropy_prior"] - 0.1, found


def test_the_area_under_the_curve() -> None:
    scores, good = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert auc(scores, good) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert math.isnan(auc(scores, np.ones(4, bool)))


def test_what_is_saved_is_what_transformers_loads(packed: Packed, renderer: HeadRenderer, tmp_path: Path) -> None:
    net: Any = make_head(load_net(packed), renderer.vocabulary)
    torch.manual_seed(0)
    with torch.no_grad():
        net.score.weight.normal_()
    export_hf(SHIPPED, tmp_path / "base")
    save_head(net, renderer, tmp_path / "base", tmp_path / "head")
    again: Any = AutoModelForTokenClassification.from_pretrained(tmp_path / "head", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "head")
    made = renderer.sample(Solution("Make 5.", ("2+3=5", "5"), (1.0, 1.0)))
    messages = [{"role": "user", "content": "Make 5."}, {"role": "assistant", "content": f"2+3=5{TAG}5{TAG}"}]
    assert tuple(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)) == made.ids
    ids = torch.tensor([made.ids])
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, net(input_ids=ids).logits, rtol=0.05, atol=0.1)
    assert type(again).__name__ == "Qwen3ForTokenClassification"
    served = (tmp_path / "head/SERVE.md").read_text()
    assert f'"step_tag_id": {renderer.tag}' in served


def test_a_broken_line_of_labels_is_named(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    good = json.dumps({"question": "q", "steps": ["a"], "soft": 0.5, "of": 2})
    for broken in ('{"question": 1}', "{", json.dumps({"question": "q", "steps": [], "soft": 0.5}),
                   json.dumps({"question": "q", "steps": ["a"], "soft": 1.5})):  # fmt: skip
        file.write_text(f"{good}\n\n{broken}\n")
        with pytest.raises(UserError, match=r"labels\.jsonl:3: not a label"):
            read_labels(file)
    file.write_text(good)
    (tmp_path / "samples.jsonl").write_text("")
    assert read_labels(tmp_path / "samples.jsonl") == [("q", Labelled(("a",), 0.5, 2))]


def test_the_recipe_takes_a_head_by_one_setting() -> None:
    stage = load_recipe("prm", {"train.kind": "head", "train.labels": "soft"}).stages["train"]
    assert isinstance(stage, HeadStage)
    assert stage.sources == ("label",)
