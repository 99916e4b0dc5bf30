"""Stage `label`: solutions in steps, each step with Math-Shepherd's label, as lessons for a generative process reward
model: the prompt of the verifier `prm`, and `+` or `-`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import anyio.to_thread
import msgspec
from pydantic import Field
from researcher_tools.verifiers import get_verifier

from researcher.errors import UserError
from researcher.strategies.prompts import process_prompt
from researcher.train.files import read_samples, write_bytes, write_samples, write_text
from researcher.train.process import Labelled, Labeller, balanced
from researcher.train.publish.served import open_sampler
from researcher.train.sample import Sample, Term
from researcher.train.sft import Renderer
from researcher.train.stages.base import SAMPLES, Bench, Left, Stage, refuse_tools
from researcher.train.weights import read_weights
from researcher.types import Task

Lesson = tuple[str, Labelled]


class LabellingStage(Stage):
    """Labels from rollouts. Leaves `labels.jsonl`, every label, and `samples.jsonl`, those to learn from."""

    kind: Literal["label"] = "label"
    solutions: int = Field(default=4, ge=1, description="solutions of a task that are labelled")
    completions: int = Field(default=8, ge=1, description="N, rollouts from each step")
    temperature: float = Field(default=0.8, gt=0.0, le=2.0)
    max_tokens: int = Field(default=160, ge=1, description="of a rollout")
    tasks: int | None = Field(default=None, ge=1, description="how many of the recipe's tasks; None: all")
    balance: bool = Field(default=True, description="learn from as many good steps as bad ones")

    def takes(self, tasks: Sequence[Task]) -> None:
        """Tasks without tools: its rollouts go on with a begun reply, which calls none."""
        refuse_tools(tasks, "A step is labelled by rollouts of the rest of a reply, which can call no tools")

    async def run(self, bench: Bench) -> Left:
        """The labels of all tasks, from the last one on."""
        lessons: list[Lesson] = []
        async with open_sampler(bench.model, lambda text: bench.say({"server": text})) as model:
            for number, task in enumerate(bench.tasks[: self.tasks]):
                path = bench.folder / "tasks" / f"{number:06d}.json"
                if not path.exists():
                    if task.verifier is None:
                        raise UserError("a task has no verifier, so that nothing says which completions are right.")
                    labeller = Labeller(
                        model,
                        get_verifier(task.verifier),
                        completions=self.completions,
                        temperature=self.temperature,
                        max_tokens=self.max_tokens,
                    )
                    made = await self._task(labeller, task, bench.seed * 1_000_003 + number * 10_007)
                    await anyio.to_thread.run_sync(write_bytes, path, msgspec.json.encode(made))
                read = msgspec.json.decode(await anyio.Path(path).read_bytes(), type=list[Lesson])
                lessons += read
                bench.say({"labelled": number + 1, "steps": len(lessons)})
        return await anyio.to_thread.run_sync(self._write, bench, lessons)

    async def _task(self, labeller: Labeller, task: Task, seed: int) -> list[Lesson]:
        """The labels of a task's solutions; a beginning that two of them share is labelled once."""
        found: dict[tuple[str, ...], Labelled] = {}
        for i, solution in enumerate(await labeller.solutions(task, self.solutions, seed)):
            for made in await labeller.label(task, solution, seed + 100_003 * (i + 1)):
                found.setdefault(made.steps, made)
        return [(task.question, made) for made in found.values()]

    def _write(self, bench: Bench, lessons: list[Lesson]) -> Left:
        lines = [msgspec.json.encode({"question": q, **made._asdict()}).decode() + "\n" for q, made in lessons]
        write_text(bench.folder / "labels.jsonl", "".join(lines))
        chosen = balanced(lessons) if self.balance else lessons
        renderer = Renderer(read_weights(bench.model))
        write_samples(bench.folder / SAMPLES, [lesson(renderer, *each) for each in chosen])
        good = sum(made.hard for _, made in lessons)
        figures = {"labels": len(lessons), "good": good, "lessons": len(read_samples(bench.folder / SAMPLES))}
        return Left(samples=SAMPLES, figures={name: float(value) for name, value in figures.items()})


def lesson(renderer: Renderer, question: str, made: Labelled) -> Sample:
    """What the process reward model is asked about a step, and the hard label as its reply."""
    prompt = process_prompt(question, made.steps)
    messages = [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.user},
        {"role": "assistant", "content": "+" if made.hard else "-"},
    ]
    sample = renderer.example({"messages": messages}, f"{question} {len(made.steps)}")
    return msgspec.structs.replace(sample, terms=(Term("label", made.soft),))
