"""What a stage is given, what it leaves, and what all kinds of stages have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from researcher.errors import ResearcherError, UserError
from researcher.types import Task

MODEL = "model.gguf"
FOLDER = "model"
"""Its name where weights are a transformers folder."""
SAMPLES = "samples.jsonl"

Say = Callable[[Mapping[str, Any]], None]


class NoSignal(ResearcherError):
    """There is nothing to learn from, so going on cannot help."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a stage works with. It writes into `folder` alone; what it finds there is its own, from before it was cut
    off, and it goes on from it.

    `model`: the weights it begins with. `base`: those that the recipe began with. `data`: the files of samples that the
    stages it names have left, by their names, and the one that was given on the command line. `round`: from 0. `texts`:
    of a question, the documents that it is about.
    """

    folder: Path
    model: Path
    base: Path
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    data: Mapping[str, Path] = field(default_factory=dict)
    teacher: Path | None = None
    seed: int = 0
    round: int = 0
    say: Say = lambda record: None


class Left(BaseModel):
    """What a stage leaves, files by their names in its folder, and figures for a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    samples: str | None = None
    figures: dict[str, float] = {}


class Stage(BaseModel, ABC):
    """A stage as its recipe writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    begin: Literal["last", "base"] = Field(default="last", description="the weights it begins with")

    @property
    def sources(self) -> tuple[str, ...]:
        """The stages whose samples it needs; `given`: the file of the command line."""
        return ()

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from another model."""
        return False

    def check(self) -> None:
        """Refuse at once what would fail later. Raises UserError."""
        return

    def suits(self, model: Path) -> None:
        """Refuse a model that it cannot take: a GGUF file, or a transformers folder. Raises UserError."""
        return

    def takes(self, tasks: Sequence[Task]) -> None:
        """Refuse tasks that it cannot work on. Raises UserError."""
        return

    @abstractmethod
    async def run(self, bench: Bench) -> Left:
        """Do the work that is not done yet. Raises UserError, ResearcherError."""


def refuse_tools(tasks: Sequence[Task], why: str) -> None:
    """Raise UserError, which says why, where a task has tools."""
    for task in tasks:
        if task.tools:
            raise UserError(f"{why}, and these tasks want {', '.join(task.tools)}; take another recipe or suite.")
