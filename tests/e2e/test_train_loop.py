"""Rollouts that go on: over iterations and while a step runs, after SIGKILL, and with the shipped model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import train_harness  # noqa: E402

from researcher.evals.split import split  # noqa: E402
from researcher.evals.suites import open_suite  # noqa: E402
from researcher.models.embedded import SHIPPED  # noqa: E402
from researcher.store import RunReader  # noqa: E402
from researcher.train import checkpoint  # noqa: E402
from researcher.train.context import fingerprint_of  # noqa: E402
from researcher.train.course import Course  # noqa: E402
from researcher.train.paths import paths_of  # noqa: E402
from researcher.train.recipe import load_recipe  # noqa: E402
from researcher.train.sample import Sample  # noqa: E402
from researcher.train.weights import read_packed  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]
torch.set_num_threads(1)
BOTH = {"partial": {"tokens": 3}, "staleness": 1, "tensorboard": False}


class Cut(Exception):
    """The training ends here."""


def lines(folder: Path) -> list[dict[str, Any]]:
    """The metrics without what the clock says."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith(("seconds/", "waited/"))} for line in read
    ]


def samples(home: Path) -> list[Sample]:
    """Those of all runs that are kept there."""
    found: list[Sample] = []
    for path in sorted((home / "runs").glob("*.db")):
        with RunReader(path) as reader:
            found += paths_of(reader.read(), path.stem).samples
    return found


def silent(found: list[Sample]) -> list[Sample]:
    """Those without logprobs: llama.cpp leaves them out for a token in the middle of a character, and nowhere else."""
    decode = read_packed(SHIPPED).tokenizer.decode
    without = [sample for sample in found if not sample.logprobs]
    for sample in without:
        sampled = [token for token, mine in zip(sample.ids, sample.mask, strict=True) if mine]
        assert any("\ufffd" in decode([token], skip_special_tokens=False) for token in sampled), sample.thread
    return without


def train(folder: Path, kill_at: int) -> int:
    """Train in a process of its own; its exit status."""
    command = [sys.executable, train_harness.__file__, str(folder), str(kill_at), "4", json.dumps(BOTH)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env=dict(os.environ))
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode


def test_after_sigkill_in_the_middle_of_rollouts_and_steps_all_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """The kills fall where rollouts are under way, some of them while a step runs beside."""
    assert train(tmp_path / "whole", 0) == 0
    killed = 0
    for kill_at in (15, 11):
        killed += train(tmp_path / "killed", kill_at) == -signal.SIGKILL
    assert killed == 2
    state = checkpoint.latest(tmp_path / "killed/checkpoints")
    assert state is not None
    assert state["done"] < 4
    assert state["flights"] or state["ahead"]
    assert train(tmp_path / "killed", 0) == 0
    one, other = (checkpoint.latest(tmp_path / name / "checkpoints") for name in ("whole", "killed"))
    assert one is not None
    assert other is not None
    for name in ("parameters", "rng"):
        mine, theirs = one["trainer"][name], other["trainer"][name]
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert (one["versions"], one["sampler"]) == (other["versions"], other["sampler"])
    assert lines(tmp_path / "whole") == lines(tmp_path / "killed")
    assert [line["iteration"] for line in lines(tmp_path / "killed")] == [1, 2, 3, 4]


COIN = [{"name": "coin"}]
"""Samples on a problem that the model knows are all right, and nothing would move."""


def course(recipe: str, folder: Path, changes: Mapping[str, Any]) -> Course:
    """The recipe on a few Countdown problems, small."""
    fields = {"tasks": 2, "group": 4, "params.max_tokens": 160, "sampling.refills": 0, "sampling.keep": "all"}
    settings = {f"rl.{name}": value for name, value in {**fields, **changes}.items()}
    chosen = split(open_suite("countdown:3"), 6, 0)
    return Course(
        recipe=load_recipe(recipe, settings), folder=folder, base=SHIPPED, tasks=chosen.train, held_out=()
    )  # fmt: skip


async def test_kimis_rollouts_go_on_under_new_weights(gguf: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"iterations": 8, "partial.tokens": 16, "trainer.minibatches": 1, "begins.kimi_length": 0}
    changes |= {"rewards": [{"name": "kimi_length"}, *COIN]}
    told: list[Mapping[str, Any]] = []

    def cut(record: Mapping[str, Any]) -> None:
        told.append(record)
        if record.get("iteration") == 3 and len(told) < 20:
            raise Cut

    with pytest.raises(Cut):
        await course("kimi", tmp_path, changes).run(cut)
    state = checkpoint.latest(tmp_path / "01-rl/checkpoints")
    assert state is not None
    before = {flight[1]: flight for flight in state["flights"]}
    begun = {s.thread: s for s in samples(tmp_path / "01-rl/rollouts") if s.run in before}
    told += [{}] * 20
    await course("kimi", tmp_path, changes).run(cut)

    read = lines(tmp_path / "01-rl")
    assert [line["iteration"] for line in read] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(line["groups"] + line["partial/under_way"] == 2.0 for line in read)
    rolled = samples(tmp_path / "01-rl/rollouts")
    several = [s for s in rolled if len({span.version for span in s.versions}) > 1]
    assert several, "no rollout went on under new weights"
    packed = read_packed(SHIPPED)
    mine = fingerprint_of(packed.tokenizer.get_vocab(), packed.chat_template)
    lost = silent(rolled)
    for each in rolled:
        assert (each.part, each.parts, each.tokenizer) == (0, 1, mine)  # nothing was tokenised or rendered again
        assert len(each.logprobs) == len(each.ids) or each in lost
        assert each.sampled <= 160
        assert all(span.end - span.start == 16 for span in _pieces(each)[:-1])
    for thread, sample in begun.items():  # what was under way at the cut goes on from these very tokens
        assert any(s.ids[: len(sample.ids)] == sample.ids for s in rolled if s.thread.startswith(thread[:9])), thread
    ended = [line for line in read if line["groups"]]
    assert ended
    assert all(line["staleness/max"] <= line["staleness/bound"] == 9.0 for line in ended)
    assert any("gradient" in line for line in ended)


def _pieces(sample: Sample) -> list[Any]:
    """The spans that each reply of the rollout added."""
    return [span for span in sample.nodes if sample.mask[span.start]]


async def test_rollouts_go_on_while_the_shipped_model_is_trained(gguf: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"iterations": 4, "staleness": 1, "trainer.loss.mismatch.mode": "truncate"}
    changes |= {"rewards": COIN}
    cuts: list[int] = []

    def cut(record: Mapping[str, Any]) -> None:
        if record.get("iteration") == 2 and not cuts:
            cuts.append(2)
            raise Cut

    with pytest.raises(Cut):
        await course("r1-zero", tmp_path, changes).run(cut)
    await course("r1-zero", tmp_path, changes).run(cut)
    read = lines(tmp_path / "01-rl")
    assert [line["iteration"] for line in read] == [1, 2, 3, 4]
    assert all(line["staleness/max"] <= 1.0 for line in read)
    assert read[0]["staleness/max"] == 0.0
    assert all(line["staleness/unknown"] == 0.0 for line in read)
    assert sum(line["staleness/dropped"] for line in read) == len(silent(samples(tmp_path / "01-rl/rollouts")))
    moved = [line for line in read[:-1] if line.get("gradient")]
    assert moved
    assert sum(line["staleness/max"] == 1.0 for line in read[1:]) == len(moved)  # each publish makes one iteration old
    assert sorted((tmp_path / "01-rl/tensorboard").iterdir())
