"""A recipe carried out in a folder, stage by stage: `Course(recipe, folder, ...).run(say)`.

    DIR/recipe.json            what was asked for; another recipe, model or suite is refused
    DIR/base/                  the model it began with, as transformers and vLLM load it, where that was a GGUF
    DIR/01-rl/stage.json       what the first stage left, written when it is done
    DIR/01-rl/...              its files: metrics.jsonl, model.gguf, samples.jsonl, checkpoints
    DIR/model.gguf             the weights at the end; DIR/model/ where they began as a transformers folder

The same command goes on where it was cut off: a stage that is done is not done again, one that is not goes on itself.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from researcher.errors import UserError
from researcher.train.embedded.convert import export_hf
from researcher.train.files import checksum, write_bytes, write_folder, write_text
from researcher.train.recipe import Recipe
from researcher.train.stages.base import FOLDER, MODEL, Bench, Left, NoSignal, Say, Stage
from researcher.train.weights import read_weights
from researcher.types import Task

GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Course:
    """A recipe with all that it works on. `texts`: of a question, the documents it is about. `said`: what else must be
    the same when a folder is gone on with."""

    recipe: Recipe
    folder: Path
    base: Path
    tasks: Sequence[Task]
    held_out: Sequence[Task] = ()
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    given: Path | None = None
    teacher: Path | None = None
    seed: int = 0
    said: Mapping[str, Any] | None = None

    async def run(self, say: Say) -> Path:
        """The trained model's file, or folder. Raises UserError, NoSignal, ModelError."""
        self._check()
        with self._claimed():
            await anyio.to_thread.run_sync(self._export)
            model, data = self.base, dict[str, Path]()
            if self.given is not None:
                data[GIVEN] = self.given
            for number, (name, stage, round_) in enumerate(self._stages(), 1):
                folder = self.folder / f"{number:02d}-{name}"
                begin = self.base if stage.begin == "base" else model
                bench = Bench(
                    folder=folder,
                    model=begin,
                    base=self.base,
                    tasks=self.tasks,
                    held_out=self.held_out,
                    texts=self.texts,
                    data={source: data[source] for source in stage.sources if source in data},
                    teacher=self.teacher if stage.needs_teacher else None,
                    seed=self.seed + 7919 * round_,
                    round=round_,
                    say=lambda record, at=folder.name: say({"stage": at, **record}),  # type: ignore[misc]
                )
                left = await self._stage(name, stage, bench)
                model = model if left.model is None else folder / left.model
                if left.samples is not None:
                    data[name] = folder / left.samples
            return await anyio.to_thread.run_sync(self._finish, model)

    def _stages(self) -> Iterator[tuple[str, Stage, int]]:
        for round_ in range(self.recipe.rounds):
            for name, stage in self.recipe.stages.items():
                yield name, stage, round_

    def _check(self) -> None:
        """Refuse at once what a later stage would refuse."""
        for name, stage in self.recipe.stages.items():
            stage.check()
            stage.suits(self.base)
            try:
                stage.takes(self.tasks)
            except UserError as error:
                raise UserError(f"Stage {name}: {error}") from error
            if stage.sources == (GIVEN,) and self.given is None:
                raise UserError(f"The stage {name} of {self.recipe.name} needs examples: give --data FILE.")
            if stage.needs_teacher and self.teacher is None:
                raise UserError(f"The stage {name} of {self.recipe.name} needs a teacher: give --teacher gguf:PATH.")

    async def _stage(self, name: str, stage: Stage, bench: Bench) -> Left:
        """What the stage left, now or before."""
        folder = bench.folder
        inputs = await anyio.to_thread.run_sync(_inputs, bench)
        done = folder / "stage.json"
        if done.exists():
            record = json.loads(done.read_text("utf-8"))
            if record["inputs"] == inputs and all(
                (folder / file).exists() and checksum(folder / file) == sum_ for file, sum_ in record["files"].items()
            ):
                bench.say({"done": "before", **record["left"]["figures"]})
                return Left.model_validate(record["left"])
            raise UserError(f"{folder} was changed after its stage was done; remove it to do the stage again.")
        folder.mkdir(parents=True, exist_ok=True)
        bench.say({"begins": type(stage).model_fields["kind"].default, "from": str(bench.model)})
        try:
            left = await stage.run(bench)
        except UserError as error:
            raise UserError(f"Stage {name}: {error}") from error
        except (NoSignal, FloatingPointError) as error:
            raise NoSignal(f"Stage {name} {error}") from error
        files = {file: checksum(folder / file) for file in (left.model, left.samples) if file is not None}
        record = {"kind": type(stage).model_fields["kind"].default, "inputs": inputs, "files": files}
        write_text(done, json.dumps({**record, "left": left.model_dump()}, indent=1) + "\n")
        bench.say({"done": "now", **left.figures})
        return left

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """The folder is this course's, and no other process has it."""
        wanted = {"recipe": self.recipe.name, **(self.said or {}), "seed": self.seed, **self.recipe.described()}
        file = self.folder / "recipe.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written ({error.strerror}); choose another --out.") from None
        with lock:
            try:
                # A record lock, which ends with this process; one of flock would live on in its children.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.folder} is in use by another process that trains there.") from None
            if file.exists():
                self._same(json.loads(file.read_text("utf-8")), wanted)
            elif any(entry.name != ".lock" for entry in self.folder.iterdir()):
                raise UserError(f"{self.folder} is not empty and holds no training; choose a new folder with --out.")
            else:
                write_text(file, json.dumps(wanted, indent=1) + "\n")
            yield

    def _same(self, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(wanted))
        for key in [*wanted, *before]:
            if before.get(key) != wanted.get(key):
                what = f"other settings of its {key}"
                if not isinstance(wanted.get(key), (dict, list)):
                    what = f"another {key} ({before.get(key)}, not {wanted.get(key)})"
                raise UserError(f"{self.folder} holds a training with {what}; choose a new folder with --out.")

    def _export(self) -> None:
        if self.base.is_dir():
            read_weights(self.base)  # says in a sentence what is wrong with it
        elif not (self.folder / "base" / "model.safetensors").exists():
            read_weights(self.base)
            export_hf(self.base, self.folder / "base")

    def _finish(self, model: Path) -> Path:
        if model.is_dir():
            return write_folder(self.folder / FOLDER, model)
        out = self.folder / MODEL
        write_bytes(out, model.read_bytes())
        return out


def _inputs(bench: Bench) -> dict[str, str]:
    """The checksums of what a stage begins with."""
    files = {"model": bench.model, **bench.data}
    if bench.teacher is not None:
        files["teacher"] = bench.teacher
    return {name: checksum(path) for name, path in files.items()}
