"""Distillation and a process reward model with a head, with the shipped model and a real vLLM."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from researcher_tools.verifiers.pooling import Pooling

from researcher.errors import UserError
from researcher.evals.split import split
from researcher.evals.suites import open_suite
from researcher.models.embedded import SHIPPED
from researcher.models.endpoint import Endpoint
from researcher.models.vllm import VllmSettings, open_vllm
from researcher.types import Task
from tests.e2e.conftest import VLLM_ARGS

torch = pytest.importorskip("torch")

from researcher.train.course import Course  # noqa: E402
from researcher.train.head import (  # noqa: E402
    HeadPolicy,
    HeadRenderer,
    Solution,
    head_batch,
    make_head,
    save_head,
)
from researcher.train.policy import LanguagePolicy  # noqa: E402
from researcher.train.recipe import load_recipe  # noqa: E402
from researcher.train.sft import Renderer  # noqa: E402
from researcher.train.teacher import LocalTeacher  # noqa: E402
from researcher.train.teacher_server import open_server  # noqa: E402
from researcher.train.weights import load_net, read_packed, save_net  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]
torch.set_num_threads(1)

SUMS = [(a, b) for a in range(2, 10) for b in range(3, 9)]


def conversation(a: int, b: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"What is {a}+{b}?"},
            {"role": "assistant", "reasoning_content": f"{a}+{b}={a + b}", "content": f"<answer>{a + b}</answer>"},
        ]
    }


def figures(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "stage.json").read_text())["left"]["figures"]
    return found


async def test_a_damaged_student_goes_back_towards_its_teacher(gguf: Path, tmp_path: Path) -> None:
    packed = read_packed(SHIPPED)
    net: Any = load_net(packed)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 2:
                parameter.add_(torch.randn_like(parameter) * parameter.std() * 0.25)
    student = save_net(net, packed, tmp_path / "student.gguf")
    data, recipe = anyio.Path(tmp_path / "data.jsonl"), anyio.Path(tmp_path / "soft.toml")
    await data.write_text("".join(json.dumps(conversation(a, b)) + "\n" for a, b in SUMS))
    await recipe.write_text(
        "about = 'x'\n[stages.soft]\nkind = 'topk'\ndata = ['given']\nk = 12\nbatch = 12\nepochs = 3\nrate = 5e-4\n"
    )
    course = Course(recipe=load_recipe(str(recipe)), folder=tmp_path / "out", base=student, tasks=[], given=Path(data))
    with pytest.raises(UserError, match="give --teacher"):
        await course.run(lambda record: None)
    await replace(course, teacher=SHIPPED).run(lambda record: None)
    told = figures(tmp_path / "out/01-soft")
    assert told["held_out"] >= 4
    assert told["kl_after"] < 0.5 * told["kl_before"], told


async def test_a_vllm_server_is_the_same_teacher_as_its_weights(vllm: Endpoint, tmp_path: Path) -> None:
    packed = read_packed(SHIPPED)
    renderer = Renderer(packed)
    samples = [renderer.example(conversation(a, b), f"{a}+{b}") for a, b in SUMS[:6]]
    local = LocalTeacher(LanguagePolicy(load_net(packed)), 8).targets_of(samples)
    exchange = vllm._exchange
    uri = f"{exchange.base_url}#{vllm.model}"
    async with open_server(uri, 8, packed.tokenizer, key=exchange.key) as teacher:
        await teacher.check(packed.tokenizer, packed.tokenizer.decode(list(samples[0].ids), skip_special_tokens=False))
        served = await teacher.targets(samples)
        other = read_packed(SHIPPED).tokenizer
        other.add_tokens(["1+2"])
        with pytest.raises(UserError, match="has another tokenizer"):
            await teacher.check(other, "1+2")
    for mine, theirs in zip(local, served, strict=True):
        assert mine.ids.shape == theirs.ids.shape
        # The server computes in bfloat16: the likeliest agree where they are clear, and their chances nearly so. Off by
        # a place, or at another temperature, they would differ by tenths on average.
        clear = mine.logprobs[:, 0] > math.log(0.6)
        assert (mine.ids[clear, 0] == theirs.ids[clear, 0]).all()
        apart = np.abs(np.exp(mine.logprobs[:, 0]) - np.exp(theirs.logprobs[:, 0]))
        assert apart.mean() < 0.03
        assert apart.max() < 0.2
        assert np.abs(np.exp(mine.logprobs).sum(1) - np.exp(theirs.logprobs).sum(1)).max() < 0.1


async def test_a_head_on_vllms_pooling_server_is_read_by_the_verifier(
    gguf: Path, vllm_python: str, hf_model: Path, tmp_path: Path
) -> None:
    packed = read_packed(SHIPPED)
    renderer = HeadRenderer(packed.tokenizer, packed.chat_template)
    net: Any = make_head(load_net(packed), renderer.vocabulary)
    torch.manual_seed(0)
    with torch.no_grad():  # a head with opinions
        net.score.weight.normal_(0.0, 0.2)
    save_head(net, renderer, hf_model, tmp_path / "head")
    steps = ("2+3=5 left 5 7", "5+7=12 left 12", "<answer>2+3+7</answer>")
    sample = renderer.sample(Solution("Make 12 of 2, 3, 7.", steps, (1.0, 1.0, 1.0)))
    mine = HeadPolicy(net).predict(head_batch([sample]))[torch.tensor(sample.mask)].tolist()
    assert max(mine) - min(mine) > 0.02
    pooler = json.dumps({"pooling_type": "STEP", "step_tag_id": renderer.tag})
    settings = VllmSettings(tool_parser=None, reasoning_parser=None)
    args = (*VLLM_ARGS, "--runner", "pooling", "--pooler-config", pooler)
    async with open_vllm(
        str(tmp_path / "head"), python=vllm_python, args=args, settings=settings, say=print
    ) as endpoint:
        verifier = Pooling(f"{endpoint.base_url}#head")
        task = Task(question="Make 12 of 2, 3, 7.")
        told = [await verifier.verify_step(task, steps[: n + 1]) for n in range(3)]
        await verifier.aclose()
    assert [verdict.score for verdict in told] == pytest.approx(mine, abs=0.05)


async def test_the_recipe_prm_leaves_a_head(gguf: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"label.solutions": 2, "label.completions": 2, "label.max_tokens": 64}
    changes |= {"label.temperature": 1.2, "train.kind": "head", "train.labels": "soft", "train.held_out": 0.3}
    chosen = split(open_suite("countdown:3"), 4, 0)
    out = tmp_path / "prm"
    course = Course(recipe=load_recipe("prm", changes), folder=out, base=SHIPPED, tasks=chosen.train)
    await course.run(lambda record: None)
    told = figures(out / "02-train")
    assert told["solutions"] >= 1
    assert told["held_out/steps"] >= 1
    assert told["loss_last"] < 1.0
    assert (out / "02-train/head/SERVE.md").exists()
    config = json.loads((out / "02-train/head/config.json").read_text())
    assert config["architectures"] == ["Qwen3ForTokenClassification"]
