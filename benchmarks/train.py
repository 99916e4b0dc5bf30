"""Tokens a second of a training step, ours beside TRL's GRPOTrainer: `make bench-train`, `python -m benchmarks.train`.

The same weights, batch, loss (DAPO's), optimiser (AdamW, clipped to a norm of 1), number type and threads. A batch is
groups of 16 completions of one prompt; their lengths are skewed, most near 60 tokens and the longest 200.

Measured: one step from a batch with advantages to new weights: laying out, forward, backward, clipping, optimiser,
metrics. TRL's side is its own `train()`, from `on_step_begin` to `on_step_end`, with rollouts given in the shape its
own generation leaves them (prompts padded on the left, completions on the right, the whole batch to one length), so
generation, rewards and advantages cost it nothing; with one step a rollout neither side computes old logprobs.
Gradient accumulation over micro-batches of `--micro` rows. What TRL sets otherwise is set so that it is the faster:
no gradient checkpointing (its default is on), no vLLM correction, no reference.

Ours is measured twice, with every token of every sample laid out and with each prompt computed once for its group.
All three take turns in every round. Tokens are those of the samples without padding, a prompt counted for each of its
samples. Ratios are medians of each round's own, by wall time and by processor time of the process: under load from
elsewhere the second is the one to go by. Before anything is timed all have to find the same loss and gradient norm.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.train_case import APART, BAR, GROUP, RATE, SHARED, SIZES, TRL, Case, Stopwatch, Took, load, make
from benchmarks.train_trl import train_with_trl
from researcher.train.batch import Batch
from researcher.train.losses import LossConfig
from researcher.train.policy import LanguagePolicy
from researcher.train.trainer import Trainer, TrainerConfig

# Ours


def ours(net: nn.Module, batch: Batch, options: argparse.Namespace, *, share: bool) -> Callable[[], Took]:
    """A step of our trainer, to be called again and again."""
    config = TrainerConfig(loss=LossConfig.preset("dapo"), rate=RATE, clip=1.0, row_tokens=options.row)
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    policy = LanguagePolicy(net.to(options.device), tokens=config.row_tokens, dtype=dtype, share=share)
    trainer = Trainer(policy, config)

    def step() -> Took:
        watch = Stopwatch(options.device)
        [metrics] = trainer.learn(batch)
        return watch.took(metrics["loss"], metrics["gradient"])

    return step


# A case


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """What each side took in each round, after a first step that is compared and not timed."""
    net = load(case.model)
    batch = make(case, int(net.get_input_embeddings().weight.shape[0]))
    sides = {name: ours(copy.deepcopy(net), batch, options, share=name == SHARED) for name in (APART, SHARED)}
    rounds: list[dict[str, Took]] = []

    def after(trl: Took) -> None:
        order = list(sides) if len(rounds) % 2 else list(reversed(sides))
        rounds.append({TRL: trl, **{name: sides[name]() for name in order}})
        _same(rounds[-1], 2e-2 if options.bf16 else 1e-4)

    train_with_trl(net, batch, case, options, after, options.rounds + 1)
    counts = torch.bincount(batch.sequence)
    found = {**case._asdict(), "tokens": len(batch.ids), "padded": batch.samples * int(counts.max())}
    return found | _figures(len(batch.ids), rounds[1:]) | {"differ": max(map(_apart, rounds))}


def _same(found: dict[str, Took], tolerance: float) -> None:
    if _apart(found) > tolerance:
        raise SystemExit(f"the sides do not compute the same: {found}")


def _apart(found: dict[str, Took]) -> float:
    """How far loss and gradient norm of any side are from TRL's, relative to its norm and loss."""
    trl = found[TRL]
    return max(
        max(abs(one.loss - trl.loss) / max(abs(trl.loss), 1e-3), abs(one.norm - trl.norm) / trl.norm)
        for one in found.values()
    )


def _figures(tokens: int, rounds: list[dict[str, Took]]) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for name in rounds[0]:
        wall, cpu = [each[name].wall for each in rounds], [each[name].cpu for each in rounds]
        sides[name] = {
            "wall": statistics.median(wall),
            "cpu": statistics.median(cpu),
            "tokens_per_second": tokens / statistics.median(wall),
            "tokens_per_cpu_second": tokens / statistics.median(cpu),
            "ratio": statistics.median(each[TRL].wall / each[name].wall for each in rounds),
            "cpu_ratio": statistics.median(each[TRL].cpu / each[name].cpu for each in rounds),
        }
    return {"sides": sides}


def memory(case: Case, options: argparse.Namespace, side: str) -> float:
    """MiB that a process of its own needs for two steps of one side, beyond what it had before them."""
    command = [sys.executable, "-m", "benchmarks.train", "--child", side, "--models", case.model, "--groups"]
    command += [str(case.groups), "--prompts", str(case.prompt), "--device", options.device, "--row", str(options.row)]
    command += ["--micro", str(options.micro), "--threads", str(options.threads)]
    command += ["--bf16"] * options.bf16 + ["--checkpointing"] * options.checkpointing
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def child(case: Case, options: argparse.Namespace) -> float:
    """What the peak of this process over two steps of one side is above what it held before, MiB."""
    net = load(case.model)
    batch = make(case, int(net.get_input_embeddings().weight.shape[0]))
    cuda = options.device != "cpu"
    if options.child == TRL:
        before = 0.0 if cuda else _status("VmRSS")
        train_with_trl(net, batch, case, options, lambda _: None, 2)
    else:
        step = ours(net, batch, options, share=options.child == SHARED)
        before = 0.0 if cuda else _status("VmRSS")
        step()
        step()
    return (torch.cuda.max_memory_allocated() / 2**20 if cuda else _status("VmHWM")) - before


def _status(field: str) -> float:
    """MiB. Not getrusage: a child begins with its parent's peak there."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


# What is printed


def _line(row: dict[str, Any]) -> str:
    head = f"{row['model']:>8} {row['groups']:>3} x {GROUP}  prompt {row['prompt']:>4}"
    parts = []
    for name, side in row["sides"].items():
        text = f"{name} {side['tokens_per_second']:,.0f} ({side['tokens_per_cpu_second']:,.0f})"
        if name != TRL:
            text += f" {side['ratio']:.2f}x ({side['cpu_ratio']:.2f}x)"
        if "mib" in side:
            text += f" {side['mib']:,.0f} MiB"
        parts.append(text)
    return f"{head}: {'; '.join(parts)}"


def _bars(rows: list[dict[str, Any]]) -> None:
    for name in (APART, SHARED):
        least = min(min(row["sides"][name]["ratio"], row["sides"][name]["cpu_ratio"]) for row in rows)
        print(f"bar: {name}: at least {BAR} times TRL's tokens/s: {least:.2f}, {'held' if least >= BAR else 'missed'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["shipped"], choices=["shipped", *SIZES])
    parser.add_argument("--groups", type=int, nargs="+", default=[4])
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 512], help="tokens of a prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--micro", type=int, default=8, help="rows of TRL's micro-batches")
    parser.add_argument("--row", type=int, default=TrainerConfig().row_tokens, help="tokens of one of our rows")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in TRL, its default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast on both sides")
    parser.add_argument("--memory", action="store_true", help="peaks too, each in a process of its own")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--child", choices=[TRL, APART, SHARED], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if any(groups * GROUP % options.micro for groups in options.groups):
        parser.error(f"--micro {options.micro} does not divide the rows of a batch (groups times {GROUP})")
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no CUDA device here")
    return options


def main() -> None:
    """Measure, print, and write the figures as JSON where asked."""
    options = _options()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(options.threads)
    cases = [Case(*each) for each in itertools.product(options.models, options.groups, options.prompts)]
    if options.child:
        print(child(cases[0], options))
        return
    load_before = os.getloadavg()[0]
    print(f"load {load_before:.1f} on {os.cpu_count()} processors; {options.threads} threads; real tokens a second of")
    print("wall time, in brackets of processor time; ratios to TRL, medians of each round's own", flush=True)
    rows = []
    for case in cases:
        rows.append(measure(case, options))
        if options.memory:
            for side in rows[-1]["sides"]:
                rows[-1]["sides"][side]["mib"] = memory(case, options, side)
        print(_line(rows[-1]), flush=True)
    _bars(rows)
    print(f"loss and gradient norm differ by at most {max(row['differ'] for row in rows):.1e}")
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name not in ("json", "child")}
        found = {"load": [load_before, os.getloadavg()[0]], "settings": settings, "cases": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
