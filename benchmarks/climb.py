"""A climb that can be watched, and its control: `make demo-train`, `python -m benchmarks.climb`.

Reinforcement learning alone (recipe r1-zero), from the shipped model, under a prompt it was never trained on: that of
DeepSeek-R1-Zero. It knows Countdown in a format of its own, and under this prompt it begins with about a quarter of
the problems right. What is reported is greedy accuracy on held-out problems that no training draws, before and after,
for each seed, with the interval of the paired difference over the problems; not the reward that it was trained on.

The control is the same training whose reward is a coin: it must not climb, and the diagnosis must say so within
fifty steps. Exit 1 where a seed rose by less than ten points, or the control was not found out.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from researcher.charts import Series, Spot, chart
from researcher.intervals import wilson

SUITE = "countdown:3"
SETTINGS = {
    "rl.tasks": 8,
    "rl.group": 16,
    "rl.evaluate_every": 7,
    "rl.params.max_tokens": 256,
    "rl.sampling.refills": 0,
    "rl.trainer.rate": 1.5e-4,
}
CONTROL = {"rl.rewards": '[{name="coin",params={p=0.25}}]', "rl.trainer.minibatches": 1}
BAR, STEPS = 0.10, 50


class Climb(NamedTuple):
    """One training: held-out greedy accuracy by iteration, the sentences of its diagnosis by step, seconds."""

    seed: int
    held_out: dict[int, float]
    findings: dict[int, str]
    seconds: float

    @property
    def rise(self) -> float:
        """From before the first step to after the last."""
        values = list(self.held_out.values())
        return values[-1] - values[0]


def train(folder: Path, seed: int, iterations: int, held_out: int, settings: dict[str, Any]) -> Climb:
    """One training by the command that anyone would type; it goes on where it was cut off."""
    command = [sys.executable, "-m", "researcher", "train", "r1-zero", "--suite", SUITE, "--out", str(folder)]
    command += ["--seed", str(seed), "--iterations", str(iterations), "--held-out", str(held_out)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    print(f"\n$ researcher {shlex.join(command[3:])}", flush=True)
    began = time.monotonic()
    subprocess.run(command, check=True)
    return read(folder / "01-rl" / "metrics.jsonl", seed, time.monotonic() - began)


def read(path: Path, seed: int, seconds: float) -> Climb:
    """What the metrics of a training say."""
    held_out: dict[int, float] = {}
    findings: dict[int, str] = {}
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        if "held_out/greedy" in record:
            held_out[record["iteration"]] = record["held_out/greedy"]
        for finding in record.get("findings", ()):
            findings.setdefault(int(record.get("step", 0)), finding)
    return Climb(seed, held_out, findings, seconds)


def table(climbs: list[Climb], control: Climb | None, problems: int) -> str:
    """Markdown: a line for each training."""
    lines = [
        f"Held-out greedy accuracy on {problems} problems of {SUITE}, before and after (95 %, Wilson).",
        "",
        "| training | before | after | points | seconds |",
        "|---|---|---|---|---|",
    ]
    for climb in [*climbs, *([control] if control else [])]:
        name = "control: a coin" if climb is control else f"seed {climb.seed}"
        values = list(climb.held_out.values())
        before, after = (f"{v:.3f} ({wilson(v * problems, problems).low:.3f}-{wilson(v * problems, problems).high:.3f})"
                         for v in (values[0], values[-1]))  # fmt: skip
        lines.append(f"| {name} | {before} | {after} | {100 * climb.rise:+.1f} | {climb.seconds:.0f} |")
    if control:
        said = [f"step {step}: {text}" for step, text in control.findings.items()]
        lines += ["", f"The diagnosis of the control: {'; '.join(said) or 'nothing'}."]
    return "\n".join(lines)


def figure(climbs: list[Climb], control: Climb | None, problems: int) -> str:
    """The SVG of held-out accuracy over the iterations."""
    series = []
    for climb in [*climbs, *([control] if control else [])]:
        spots = [Spot(i, v, *wilson(v * problems, problems)) for i, v in climb.held_out.items()]
        series.append(Series("control: a coin" if climb is control else f"seed {climb.seed}", spots))
    return chart(
        series, title="r1-zero from the shipped model", x_label="iteration", y_label="held-out greedy", across="linear"
    )


def main() -> int:
    """The exit code: 0 where every seed climbed and the control was found out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=14)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--control", type=int, default=30, help="iterations of the control; 0: none")
    parser.add_argument("--out", type=Path, default=Path(".climb"))
    chosen = parser.parse_args()
    climbs = [
        train(chosen.out / f"seed-{seed}", seed, chosen.iterations, chosen.held_out, SETTINGS)
        for seed in range(chosen.seeds)
    ]
    control = None
    if chosen.control:
        coin = {**SETTINGS, **CONTROL, "rl.tasks": 4, "rl.group": 8, "rl.evaluate_every": chosen.control}
        control = train(chosen.out / "control", 0, chosen.control, chosen.held_out, coin)
    text = table(climbs, control, chosen.held_out)
    (chosen.out / "climb.md").write_text(text + "\n", "utf-8")
    (chosen.out / "climb.svg").write_text(figure(climbs, control, chosen.held_out), "utf-8")
    print(f"\n{text}\n\nwritten: {chosen.out / 'climb.md'}, {chosen.out / 'climb.svg'}")
    low = [climb.seed for climb in climbs if climb.rise < BAR]
    unseen = control is not None and not any(step <= STEPS for step in control.findings)
    if low:
        print(f"rose by less than {100 * BAR:.0f} points: seed {', '.join(map(str, low))}")
    if unseen:
        print(f"the control was not diagnosed within {STEPS} steps")
    return int(bool(low) or unseen)


if __name__ == "__main__":
    sys.exit(main())
