"""Weights on the Games of 24 that no training draws: `python -m benchmarks.game24 WEIGHTS.gguf ...`.

For each GGUF a line: greedy accuracy on all 681 held-out puzzles of Tree of Thoughts' list with its 95 % interval
(Wilson), then on every seventh of them 16 samples at temperature 1: how many are right, and on how many puzzles at
least one is (pass@16), each with the mean length of the replies in tokens. A reply is cut at 500.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import anyio

from researcher.evals.split import task_of
from researcher.evals.suites import open_suite
from researcher.intervals import wilson
from researcher.models.embedded import open_on_all_cores
from researcher.train.rollouts import Group, Rollouts, rate_of

SUITE, STRIDE, SAMPLES, LIMIT = "game24:0-1361:held-out", 7, 16, 500


class Row(NamedTuple):
    """What one GGUF came to."""

    greedy: float
    length: float
    sampled: float
    any_right: float
    sampled_length: float
    puzzles: int
    few: int

    def cells(self) -> list[str]:
        """As cells of a Markdown table."""
        low, high = wilson(self.greedy * self.puzzles, self.puzzles)
        return [
            f"{self.greedy:.3f} ({low:.3f}-{high:.3f})",
            f"{self.length:.0f}",
            f"{self.sampled:.3f}",
            f"{self.any_right:.3f}",
            f"{self.sampled_length:.0f}",
        ]


async def measure(path: Path, seed: int) -> Row:
    """The row of a GGUF."""
    suite = open_suite(SUITE)
    tasks = [task_of(problem) for problem in suite.problems(suite.size or 0)]
    some = tasks[::STRIDE]
    vote = {"n": SAMPLES, "stop": "full", "temperature": 1.0, "max_tokens": LIMIT}
    with tempfile.TemporaryDirectory() as home:
        async with open_on_all_cores(path) as model:
            chains = Rollouts(model, Path(home), "chain_of_thought", {"max_tokens": LIMIT}, at_once=32)
            greedy = await chains.gather(tasks, seed)
            sampled = await Rollouts(model, Path(home), "vote", vote).gather(some, seed)
    rates = [rate_of(group.samples) for group in sampled]
    return Row(
        statistics.fmean(rate_of(group.samples) for group in greedy),
        _length(greedy),
        statistics.fmean(rates),
        statistics.fmean(rate > 0 for rate in rates),
        _length(sampled),
        len(tasks),
        len(some),
    )


def _length(groups: list[Group]) -> float:
    return statistics.fmean(sample.sampled for group in groups for sample in group.samples)


async def _main(paths: list[Path], seed: int) -> None:
    for i, path in enumerate(paths):
        row = await measure(path, seed)
        if not i:
            print(f"| weights | greedy, {row.puzzles} held out | tokens | sampled, {row.few} x {SAMPLES} | ", end="")
            print(f"pass@{SAMPLES} | tokens |\n|---|---|---|---|---|---|")
        print(f"| {path.stem} | {' | '.join(row.cells())} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", help="GGUF files for the embedded engine")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    chosen = parser.parse_args()
    anyio.run(_main, chosen.weights, chosen.seed)
