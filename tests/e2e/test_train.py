"""Recipes from the first command to the last file, in miniature, with the shipped model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from researcher_tools.verifiers.prm import ProcessReward

from researcher.cli.main import main
from researcher.errors import UserError
from researcher.evals.split import split
from researcher.evals.suites import open_suite
from researcher.models.embedded import SHIPPED, open_embedded
from researcher.types import Message, ModelRequest, Sampling, Task

torch = pytest.importorskip("torch")

from researcher.store import RunReader  # noqa: E402
from researcher.train.consensus import label_of  # noqa: E402
from researcher.train.course import Course  # noqa: E402
from researcher.train.files import checksum, read_samples  # noqa: E402
from researcher.train.paths import paths_of  # noqa: E402
from researcher.train.recipe import load_recipe  # noqa: E402
from researcher.train.rewards import RewardConfig, weigh  # noqa: E402
from researcher.train.sample import Sample  # noqa: E402
from researcher.train.stages.base import NoSignal  # noqa: E402
from researcher.train.weights import read_packed  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]
torch.set_num_threads(1)
ONE = Sampling(max_tokens=1)


def course(recipe: str, folder: Path, changes: Mapping[str, Any], *, tasks: int = 4, held_out: int = 0) -> Course:
    """The recipe on a few Countdown problems."""
    chosen = split(open_suite("countdown:3"), tasks, held_out)
    return Course(
        recipe=load_recipe(recipe, changes),
        folder=folder,
        base=SHIPPED,
        tasks=chosen.train,
        held_out=chosen.held_out,
        said={"suite": "countdown:3"},
    )


def small(stage: str, **more: Any) -> dict[str, Any]:
    """A stage of reinforcement learning in seconds."""
    fields = {"iterations": 2, "tasks": 2, "group": 4, "params.max_tokens": 160, "sampling.refills": 0, **more}
    return {f"{stage}.{name}": value for name, value in fields.items()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def inputs(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "stage.json").read_text())["inputs"]
    return found


def groups(home: Path) -> list[list[Sample]]:
    """The samples of every run that is kept there."""
    found = []
    for path in sorted((home / "runs").glob("*.db")):
        with RunReader(path) as reader:
            found.append(list(paths_of(reader.read(), path.stem).samples))
    return found


def arguments(out: Path) -> list[str]:
    settings = [f"{name}={value}" for name, value in small("rl", group=4, tasks=3).items()]
    settings = [text for text in settings if "iterations" not in text]
    return [
        "train", "r1-zero", "--suite", "countdown:3", "--iterations", "3", "--out", str(out), "--held-out", "2",
        "--problems", "20", *(part for text in settings for part in ("--set", text)),
    ]  # fmt: skip


def test_a_killed_training_goes_on_by_the_same_command(
    gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))
    out = tmp_path / "out"
    command = [sys.executable, "-c", "import sys; from researcher.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    with subprocess.Popen(
        [*command, *arguments(out), "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("iteration") == 1:
                os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "model.gguf").exists()

    assert main([*arguments(out), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    iterations = [record["iteration"] for record in records if "iteration" in record]
    assert iterations[-1] == 3
    assert 0 not in iterations
    assert [line["iteration"] for line in lines(out / "01-rl/metrics.jsonl")] == [0, 1, 2, 3]
    assert "held_out/greedy" in lines(out / "01-rl/metrics.jsonl")[-1]
    assert checksum(out / "model.gguf") == checksum(out / "01-rl/model.gguf") != checksum(SHIPPED)
    assert (out / "base/model.safetensors").exists()

    before = (out / "01-rl/stage.json").stat().st_mtime_ns
    assert main(arguments(out)) == 0
    said = capsys.readouterr()
    assert "01-rl is done before" in said.err
    assert f"gguf:{out}/model.gguf" in said.out
    assert (out / "01-rl/stage.json").stat().st_mtime_ns == before
    assert main(["run", "Make 10 from the numbers 2, 3, 5, each used once, with + - * /.", "--model",
                 f"gguf:{out}/model.gguf", "--strategy", "chain_of_thought"]) in (0, 3)  # fmt: skip
    capsys.readouterr()

    other = arguments(out)
    other[other.index("countdown:3")] = "countdown:4"
    assert main(other) == 2
    assert "another suite (countdown:3, not countdown:4)" in capsys.readouterr().err
    (out / "01-rl/model.gguf").write_bytes(b"GGUF")
    assert main(arguments(out)) == 2
    assert "was changed after its stage was done" in capsys.readouterr().err


def test_a_mix_of_suites_is_trained_on_each_question_over_its_own_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = small("rl", group=4, tasks=6, iterations=1) | {"rl.params.over_params": "{}", "rl.sampling.keep": "all"}
    mix = ["--suite", "documents:one_hop", "--suite", "countdown:3", "--problems", "2", "--problems", "4"]
    more = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    assert main(["train", "r1-zero", *mix, "--held-out", "1", "--out", "out", *more]) == 0
    found = {sample.task: sample for group in groups(tmp_path / "out/01-rl/rollouts") for sample in group}
    assert len(found) == 6
    assert sum(any(message.role == "tool" for message in sample.messages) for sample in found.values()) == 2
    assert json.loads((tmp_path / "out/recipe.json").read_text())["suite"] == "documents:one_hop, countdown:3"
    assert "written: out/model.gguf" in capsys.readouterr().out


LOSS = "rl.trainer.loss"
MISMATCH = f"{LOSS}.mismatch.mode"
BAD: list[Any] = [
    (["train", "r1-zer", "--suite", "countdown:3"], "did you mean r1-zero"),
    (["train", "r1-zero", "--suite", "contdown"], "did you mean countdown"),
    (["train", "prm", "--suite", "documents", "--problems", "1", "--held-out", "0"], "rollouts of the rest of a reply"),
    (["train", "r1-zero", "--suite", "countdown:3", "--model", "http://localhost:1/v1"], "gguf:PATH or vllm:DIR"),
    (["train", "r1-zero", "--suite", "countdown:3", "--model", "vllm:no/such"], "no directory no/such"),
    (["train", "r1-zero", "--suite", "countdown:3", "--set", "rl.lora.rank=8"], "has none; give --model vllm:DIR"),
    (
        f"train r1-zero --suite countdown:3 --set {MISMATCH}=truncate --set rl.params.temperature=0.8".split(),
        "the embedded engine's are of temperature 1, and vote samples at 0.8",
    ),
    (
        f"train r1-zero --suite countdown:3 --set {LOSS}.objective=masked --set rl.params={{stop='full'}}".split(),
        "temperature 1, and vote samples at 0.8; set",  # its default
    ),
    (["train", "r1-zero", "--suite", "countdown:3", "--set", "rl.lora.rank=999"], "must be less than or equal to 512"),
    (["train", "r1-zero", "--suite", "countdown:3", "--model", "gguf:no.gguf"], "no model file no.gguf"),
    (["train", "r1-zero", "--suite", "countdown:3", "--set", "rl.rewards=[{name='acuracy'}]"], "reward 'acuracy'"),
    (["train", "r1-zero", "--suite", "countdown:3", "--iterations", "0"], "--iterations 0"),
    (["train", "star", "--suite", "countdown:3", "--iterations", "2"], "no stage of reinforcement learning"),
    (["train", "r1-zero", "--suite", "countdown:3", "--data", "no.jsonl"], "no such file"),
    (
        ["train", "r1-zero", "--suite", "countdown:3", "--problems", "2", "--problems", "2"],
        "--problems is given 2 times",
    ),
    (["train", "r1-zero", "--suite", "documents", "--suite", "documents", "--held-out", "1"], "give each suite once"),
]


@pytest.mark.parametrize(("command", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_input_is_one_sentence(
    command: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--out", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [sentence] = [line for line in printed.err.splitlines() if line.startswith("researcher: ")]
    assert said in sentence
    assert "Traceback" not in printed.err


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("researcher.train.recipe")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "researcher.train.losses", None)
    monkeypatch.setattr("builtins.__import__", _without_torch(__import__))
    assert main(["train", "r1-zero", "--suite", "countdown:3", "--out", "x"]) == 2
    assert "pip install 'researcher-orchestrator[train]'" in capsys.readouterr().err


def _without_torch(real: Any) -> Any:
    def importing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("researcher.train.recipe"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **named)

    return importing


async def test_star_trains_the_base_model_in_each_round(gguf: Path, tmp_path: Path) -> None:
    changes = {"rounds": 2, "sample.params.max_tokens": 160, "train.first_steps": 10, "train.batch": 2}
    changes |= {"rationalise.params.max_tokens": 160, "train.growth": 1.5, "train.rate": 1e-3}
    out = tmp_path / "star"
    made = await course("star", out, changes).run(lambda record: None)
    base = checksum(SHIPPED)
    first, second = inputs(out / "04-train")["model"], inputs(out / "08-train")["model"]
    assert first == second == base
    assert inputs(out / "01-sample")["model"] == base
    assert inputs(out / "05-sample")["model"] == checksum(out / "04-train/model.gguf") != base
    assert len(lines(out / "04-train/metrics.jsonl")) == 10
    assert len(lines(out / "08-train/metrics.jsonl")) == 15
    assert checksum(made) == checksum(out / "08-train/model.gguf")
    learned = read_samples(out / "02-keep/samples.jsonl")
    assert learned
    assert all(sample.verdict == "correct" for sample in learned)


async def test_rejection_sampling_learns_from_right_samples_alone(gguf: Path, tmp_path: Path) -> None:
    changes = {"sample.group": 3, "sample.params.max_tokens": 160, "sample.chunk": 2, "train.batch": 4}
    out = tmp_path / "rft"
    await course("rejection-sampling", out, {**changes, "keep.most": 2}).run(lambda record: None)
    samples, kept = read_samples(out / "01-sample/samples.jsonl"), read_samples(out / "02-keep/samples.jsonl")
    assert len(samples) == 12
    right = {sample.ids for sample in samples if sample.verdict == "correct"}
    assert {sample.ids for sample in kept} <= right
    for task in {sample.task for sample in samples}:
        different = {s.ids for s in samples if s.task == task and s.verdict == "correct"}
        assert len([s for s in kept if s.task == task]) == min(2, len(different))
    figures = json.loads((out / "03-train/stage.json").read_text())["left"]["figures"]
    assert figures["examples"] == len(kept)
    assert checksum(out / "model.gguf") != checksum(SHIPPED)


async def test_ttrls_label_is_the_mode(gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "ttrl"
    changes = small("rl", iterations=1, group=6, trained=3, **{"params.temperature": 1.5, "sampling.keep": "all"})
    await course("ttrl", out, changes).run(lambda record: None)
    [line] = lines(out / "01-rl/metrics.jsonl")
    rolled = groups(out / "01-rl/rollouts")
    assert len(rolled) == 2
    values = []
    for group in rolled:
        label = label_of(group)
        weighed = [s for s in weigh(group, [RewardConfig(name="consensus")]) if s is not None]
        assert [s.reward for s in weighed] == [float(s.canonical == label and label is not None) for s in weighed]
        values += [s.reward for s in weighed]
    assert line["reward"] == pytest.approx(sum(values) / len(values))
    assert line["samples"] == 3 * sum(label_of(group) is not None for group in rolled)
    assert 0.0 < line["majority"] <= 1.0
    assert 0.0 <= line["label_accuracy"] <= 1.0
    with pytest.raises(UserError, match=r"holds a training with another recipe \(ttrl, not kimi\)"):
        await course("kimi", out, small("rl")).run(lambda record: None)


async def test_kimis_length_reward_begins_after_the_warmup(gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "kimi"
    changes = small("rl", iterations=2, **{"begins.kimi_length": 1, "trainer.minibatches": 2})
    await course("kimi", out, changes).run(lambda record: None)
    first, second = lines(out / "01-rl/metrics.jsonl")
    assert first["reward"] == first["reward/accuracy"]
    assert "reward/kimi_length" not in first
    assert -0.5 <= second["reward/kimi_length"] <= 0.5
    assert second["reward"] == pytest.approx(second["reward/accuracy"] + 0.2 * second["reward/kimi_length"])
    saved = torch.load(out / "01-rl/checkpoints/step-00000002.pt", weights_only=True)
    moments = saved["trainer"]["optimizer"]["state"]
    assert saved["trainer"]["steps"] == 4
    assert {float(each["step"]) for each in moments.values()} == {2.0}  # those of the last iteration alone


async def test_the_stages_of_r1_leave_their_files_and_go_on(gguf: Path, tmp_path: Path) -> None:
    changes = {
        "examples.group": 2, "examples.params.max_tokens": 160, "examples.tasks": 3, "cold-start.batch": 2,
        **small("reasoning", iterations=1), "samples.group": 2, "samples.params.max_tokens": 160, "sft.batch": 4,
        **small("all", iterations=1),
    }  # fmt: skip
    for stage in ("readable", "rejection"):  # the miniature need not be readable, it must be there
        changes[f"{stage}.rewards"] = [{"name": "accuracy"}]
    out = tmp_path / "r1"

    class Cut(Exception):
        pass

    def cut(record: Mapping[str, Any]) -> None:
        if record["stage"] == "05-samples" and "sampled" in record:
            raise Cut

    with pytest.raises(Cut):
        await course("r1", out, changes).run(cut)
    names = [
        "01-examples",
        "02-readable",
        "03-cold-start",
        "04-reasoning",
        "05-samples",
        "06-rejection",
        "07-sft",
        "08-all",
    ]
    done = {name: (out / name / "stage.json").stat().st_mtime_ns for name in names[:4]}
    chunk = out / "05-samples/chunks/000000.jsonl"
    sampled = chunk.stat().st_mtime_ns
    assert not (out / "05-samples/stage.json").exists()

    told: list[Mapping[str, Any]] = []
    await course("r1", out, changes).run(told.append)
    assert [r["stage"] for r in told if r.get("done") == "before"] == names[:4]
    assert [r["stage"] for r in told if r.get("done") == "now"] == names[4:]
    assert {name: (out / name / "stage.json").stat().st_mtime_ns for name in names[:4]} == done
    assert chunk.stat().st_mtime_ns == sampled
    for name in ("03-cold-start", "04-reasoning", "07-sft", "08-all"):
        assert (out / name / "model.gguf").exists()
    assert inputs(out / "03-cold-start")["model"] == inputs(out / "07-sft")["model"] == checksum(SHIPPED)
    assert inputs(out / "04-reasoning")["model"] == checksum(out / "03-cold-start/model.gguf")
    assert inputs(out / "05-samples")["model"] == checksum(out / "04-reasoning/model.gguf")
    assert inputs(out / "07-sft")["rejection"] == checksum(out / "06-rejection/samples.jsonl")
    assert inputs(out / "08-all")["model"] == checksum(out / "07-sft/model.gguf")
    assert "reward/language" in lines(out / "04-reasoning/metrics.jsonl")[-1]
    assert checksum(out / "model.gguf") == checksum(out / "08-all/model.gguf")


async def test_distillation_takes_the_teachers_traces_and_then_its_word_on_the_students(
    gguf: Path, tmp_path: Path
) -> None:
    short = {"traces.group": 1, "traces.params.max_tokens": 160, "imitate.batch": 2, "imitate.rate": 3e-4}
    short |= {"soft.batch": 2, "soft.held_out": 0.4}
    made = course("distill", tmp_path / "out", {**short, **small("on-policy", iterations=2, group=2)}, tasks=3)
    with pytest.raises(UserError, match="give --teacher"):
        await made.run(lambda record: None)
    out = tmp_path / "out"
    await replace(made, teacher=SHIPPED).run(lambda record: None)
    assert inputs(out / "01-traces")["teacher"] == checksum(SHIPPED)
    soft = json.loads((out / "04-soft/stage.json").read_text())["left"]["figures"]
    assert soft["held_out"] >= 1.0
    assert max(soft["kl_before"], soft["kl_after"]) < 0.1  # fine-tuning on the teacher's own words moved it little
    told = lines(out / "05-on-policy/metrics.jsonl")
    assert [line["iteration"] for line in told] == [1, 2]
    assert all(line["gradient"] > 0.0 and line["informative"] == 1.0 for line in told)
    assert all(abs(line["teacher_kl"]) < 0.5 for line in told)  # the student has gone little from its teacher
    assert checksum(out / "model.gguf") != checksum(out / "03-imitate/model.gguf") != checksum(SHIPPED)


async def test_s1_curates_a_teachers_traces(gguf: Path, tmp_path: Path) -> None:
    changes = {"traces.params.max_tokens": 160, "tried.params.max_tokens": 160, "curate.easiest": 1.0}
    made = course("s1", tmp_path / "out", {**changes, "curate.count": 2, "train.batch": 2, "train.epochs": 1}, tasks=5)
    await replace(made, teacher=SHIPPED).run(lambda record: None)
    chosen = read_samples(tmp_path / "out/03-curate/samples.jsonl")
    assert len({sample.task for sample in chosen}) == len(chosen) == 2
    assert len(lines(tmp_path / "out/04-train/metrics.jsonl")) == 1


async def test_models_that_come_and_go_leave_no_descriptors(gguf: Path, tmp_path: Path) -> None:
    """A training opens the weights of every version: what each left open would end it."""
    open_before = 0
    for version in range(4):
        file = tmp_path / f"v{version}.gguf"
        await anyio.Path(file).write_bytes(await anyio.Path(gguf).read_bytes())
        async with open_embedded(file) as model:
            await model.complete(ModelRequest(messages=(Message(role="user", content="hi"),), sampling=ONE))
        if version == 0:
            open_before = len(os.listdir("/dev/fd"))
    assert len(os.listdir("/dev/fd")) <= open_before + 2


async def test_prm_learns_the_labels_of_rollouts(gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "prm"
    changes = {"label.solutions": 2, "label.completions": 3, "label.max_tokens": 64, "label.balance": False}
    changes |= {"label.temperature": 1.2, "train.epochs": 12, "train.batch": 4, "train.rate": 5e-4}
    await course("prm", out, changes, tasks=3).run(lambda record: None)
    labels = lines(out / "01-label/labels.jsonl")
    assert labels
    for line in labels:
        assert 0.0 <= line["soft"] <= 1.0
        assert line["of"] in (1, 2, 3)
        assert (line["soft"] * line["of"]) == pytest.approx(round(line["soft"] * line["of"]))
    assert len({(line["question"], tuple(line["steps"])) for line in labels}) == len(labels)
    figures = json.loads((out / "02-train/stage.json").read_text())["left"]["figures"]
    assert figures["examples"] == len(labels)
    async with open_embedded(out / "model.gguf") as model:
        judge = ProcessReward(ask=model.complete)
        told = [
            (await judge.verify_step(Task(question=line["question"]), line["steps"])).score or 0.0 for line in labels
        ]
    right = sum((score > 0.5) == (line["soft"] > 0.0) for score, line in zip(told, labels, strict=True))
    assert right / len(labels) >= 0.9


async def test_journey_learns_from_searches_with_their_wrong_turns(gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "journey"
    await course("journey", out, {"train.batch": 2, "train.epochs": 2, "train.rate": 3e-4}).run(lambda record: None)
    figures = json.loads((out / "01-search/stage.json").read_text())["left"]["figures"]
    learned = read_samples(out / "01-search/samples.jsonl")
    assert figures["searches"] == 4.0
    assert figures["kept"] == len(learned) >= 1
    tokenizer = read_packed(SHIPPED).tokenizer
    texts = [tokenizer.decode(list(sample.ids), skip_special_tokens=False) for sample in learned]
    assert sum(text.count("That does not lead there.") for text in texts) == figures["wrong_turns"]
    assert all(text.count("<answer>") == 2 for text in texts)  # that of the prompt, and one at the end
    losses = [line["loss"] for line in lines(out / "02-train/metrics.jsonl")]
    assert losses[-1] < losses[0]


async def test_a_training_without_signal_ends_and_says_so_again(gguf: Path, tmp_path: Path) -> None:
    """Every sample gets the same reward: nothing can be learned."""
    out = tmp_path / "none"
    changes = small("rl", iterations=9, group=2, **{"rewards": [{"name": "overlong"}], "diagnosis.window": 2})
    told: list[Mapping[str, Any]] = []
    for again in range(2):
        with pytest.raises(NoSignal, match="Stage rl stopped after iteration 2: no signal"):
            await course("r1-zero", out, changes).run(told.append)
        assert len(lines(out / "01-rl/metrics.jsonl")) == 2, f"attempt {again + 1}"
    assert sum("iteration" in record for record in told) == 2
    assert not (out / "model.gguf").exists()
