"""Stage `journey`: searches over steps, each written down as one way of thinking with its wrong turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
from pydantic import Field

from researcher.errors import UserError
from researcher.graph import ThoughtGraph
from researcher.store import RunReader, run_path
from researcher.strategies.prompts import answer_prompt
from researcher.train.files import write_samples
from researcher.train.journey import Journey, linearise, steps_of
from researcher.train.sft import Renderer
from researcher.train.stages.base import SAMPLES, Bench, Left, refuse_tools
from researcher.train.stages.sample import SamplingStage
from researcher.train.weights import read_weights
from researcher.types import Task


class JourneyStage(SamplingStage):
    """Searches by a strategy over steps. Leaves `samples.jsonl`: for each search that came to a right answer the
    question, the whole search as a thought, and the answer."""

    kind: Literal["journey"] = "journey"  # type: ignore[assignment]
    strategy: str = "beam"
    params: dict[str, Any] = Field(default={}, description="of the strategy")
    most: int = Field(default=3, ge=0, description="wrong turns beside each step of the right path")

    def takes(self, tasks: Sequence[Task]) -> None:
        """Tasks without tools: a search over steps calls none."""
        refuse_tools(tasks, "A search over steps, written down as one thought, has no tool calls in it")

    async def run(self, bench: Bench) -> Left:
        """The ways of all searches that ended well."""
        found = await self.gather(bench, bench.tasks[: self.tasks])
        runs = list(dict.fromkeys(sample.run for sample in found))
        return await anyio.to_thread.run_sync(self._write, bench, runs)

    def _write(self, bench: Bench, runs: list[str]) -> Left:
        renderer, samples, turns = Renderer(read_weights(bench.model)), [], 0
        for run in runs:
            question, way = self._way(bench.folder / "rollouts", run)
            if way is None:
                continue
            prompt = answer_prompt(question)
            messages = [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
                {"role": "assistant", "reasoning_content": way.thought, "content": f"<answer>{way.answer}</answer>"},
            ]
            samples.append(renderer.example({"messages": messages}, run))
            turns += way.turns
        write_samples(bench.folder / SAMPLES, samples)
        return Left(
            samples=SAMPLES,
            figures={"searches": float(len(runs)), "kept": float(len(samples)), "wrong_turns": float(turns)},
        )

    def _way(self, home: Path, run: str) -> tuple[str, Journey | None]:
        graph = ThoughtGraph()
        with RunReader(run_path(home, run)) as reader:
            for event in reader.read():
                graph.apply(event)
        if graph.started is None:
            raise UserError(f"the log of {run} has no beginning.")
        steps = steps_of(graph)
        if not steps:
            raise UserError(f"{self.strategy} does not search over steps; give beam, dvts, tree or mcts.")
        return graph.started.task.question, linearise(steps, most=self.most)
