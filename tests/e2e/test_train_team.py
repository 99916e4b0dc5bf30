"""`accelerate launch ... -m researcher train`: two processes make the training of one, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RECIPE = "about = 'x'\n[stages.train]\nkind = 'sft'\ndata = ['given']\nbatch = 4\nepochs = 2\nrate = 3e-4\n"


def arguments(folder: Path, out: str) -> list[str]:
    recipe, questions, data = folder / "tiny.toml", folder / "q.jsonl", folder / "d.jsonl"
    recipe.write_text(RECIPE)
    questions.write_text("".join(json.dumps({"question": f"{i}+1?", "answer": str(i + 1)}) + "\n" for i in range(4)))
    said = [[{"role": "user", "content": f"{i}+{i}?"}, {"role": "assistant", "content": str(2 * i)}] for i in range(8)]
    data.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in said))
    return [
        "train", str(recipe), "--suite", f"jsonl:{questions}", "--held-out", "0", "--data", str(data), "--json",
        "--out", str(folder / out),
    ]  # fmt: skip


def test_two_processes_train_as_one_does(gguf: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RESEARCHER_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    said = []
    for out, start in (("two", [*launch, "-m", "researcher"]), ("one", [sys.executable, "-m", "researcher"])):
        done = subprocess.run(
            [*start, *arguments(tmp_path, out)], capture_output=True, text=True, timeout=900, check=False,
            env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        said.append([json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
    assert len(said[0]) == len(said[1])  # what was told was told once
    two, one = ((tmp_path / out / "01-train/metrics.jsonl").read_text().splitlines() for out in ("two", "one"))
    assert len(two) == len(one) == 4
    for mine, theirs in zip(map(json.loads, two), map(json.loads, one), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert mine["samples"] == theirs["samples"] == 4.0
