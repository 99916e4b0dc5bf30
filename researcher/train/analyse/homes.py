"""Finds the stored runs under some paths, and reads them one at a time: `Survey(sources(paths)).figures()`."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from researcher.errors import ResearcherError, UserError
from researcher.store import RunReader
from researcher.train.analyse.figures import Figures, figures_of
from researcher.train.analyse.structure import Structure, structure_of
from researcher.train.analyse.thoughts import Reading, Thought, read_run
from researcher.train.paths import task_id
from researcher.train.pool import Unreadable
from researcher.types import VerdictStatus

DEPTH = 4
"""Folders below a given one in which runs are looked for: a training has them at STAGE/rollouts/runs."""


class Source(NamedTuple):
    """A folder of runs (or one run), a short name for it (its place in the training, or its own name), and the suite
    that its problems are of, where that is written down. `grades`: what an evaluation found afterwards of the answers
    to its problems, by both; it counts where the run's own verifier said nothing."""

    name: str
    runs: Path
    suite: str = ""
    grades: Mapping[tuple[str, str], VerdictStatus] = {}


def sources(paths: Iterable[Path]) -> list[Source]:
    """The folders of runs under these paths: homes, trainings, evaluations that kept their runs, or single runs.

    Raises UserError that says of a path what it is not.
    """
    found: list[Source] = []
    for path in paths:
        if path.is_file() and path.suffix == ".db":
            found.append(Source(path.stem, path))
        elif path.is_dir():
            found += _under(path)
        else:
            raise UserError(f"{path}: there is no such folder and no such run; name a home of runs or a training.")
    return list({source.runs.resolve(): source for source in found}.values())


def _under(path: Path) -> list[Source]:
    if path.name == "runs" and any(path.glob("*.db")):
        return [Source(path.resolve().parent.name, path)]
    if any((path / "runs").glob("*.db")):
        return [Source(path.resolve().name, path / "runs", _suite(path))]
    inside = sorted({db.parent for depth in range(1, DEPTH + 1) for db in path.glob("*/" * depth + "runs/*.db")})
    if inside:
        return [Source(runs.parent.relative_to(path).as_posix(), runs, _suite(path)) for runs in inside]
    if (path / "config.json").is_file() and any(path.glob("results*.jsonl")):
        raise UserError(f"{path} is an evaluation that kept no runs; run `researcher eval` again with --keep-runs.")
    if (path / "recipe.json").is_file():
        raise UserError(f"{path} is a training, and no stage of it has made runs yet: there is nothing to analyse.")
    raise UserError(
        f"There are no runs in {path}: give the folder of a training, or a home with a folder `runs` in it "
        "(`researcher run --home`, `researcher eval --keep-runs`)."
    )


def _graded(thought: Thought, grades: Mapping[tuple[str, str], VerdictStatus]) -> Thought:
    if thought.verdict is not None or thought.answer is None:
        return thought
    return msgspec.structs.replace(thought, verdict=grades.get((thought.problem, thought.answer)))


def _suite(path: Path) -> str:
    """What a training's or an evaluation's own file says of its suite; nothing where there is none that can be read."""
    for name in ("recipe.json", "config.json"):
        with suppress(OSError, ValueError):
            said = json.loads((path / name).read_text("utf-8"))
            if isinstance(said, dict) and isinstance(said.get("suite"), str):
                return str(said["suite"])
    return ""


@dataclass(slots=True)
class Survey:
    """Reads the runs of some sources, one at a time, and keeps figures alone. `sampled`: of how many thoughts the text
    is kept, for somebody to read: the same ones at each reading, drawn evenly by a digest of their names."""

    sources: Sequence[Source]
    roles: frozenset[str] = frozenset({"reasoner"})
    sampled: int = 0
    runs: int = 0
    forked: int = 0
    """Thoughts that a run has from the run it was forked from; they count once."""
    silent: int = 0
    """Runs in which no such thread said anything."""
    unreadable: list[Unreadable] = field(default_factory=list)
    structures: list[tuple[str, Structure]] = field(default_factory=list)
    """With the name of the source."""
    _kept: list[tuple[int, str, str, Thought]] = field(default_factory=list)

    def figures(self) -> Iterator[Figures]:
        """The figures of each thought, run by run. A run that cannot be read is listed with the reason."""
        seen = set[tuple[str, str, tuple[float, ...]]]()
        for source in self.sources:
            paths = [source.runs] if source.runs.is_file() else sorted(source.runs.glob("*.db"))
            for path in paths:
                reading = self._read(path)
                if reading is None:
                    continue
                yield from self._of_run(source, reading, seen)

    def _read(self, path: Path) -> Reading | None:
        try:
            with RunReader(path) as reader:
                reading = read_run(reader.read(), path.stem)
        except ResearcherError as error:
            self.unreadable.append(Unreadable(path, str(error)))
            return None
        if reading.graph.started is None:
            self.unreadable.append(Unreadable(path, "it has no beginning: the run was not started"))
            return None
        return reading

    def _of_run(
        self, source: Source, reading: Reading, seen: set[tuple[str, str, tuple[float, ...]]]
    ) -> Iterator[Figures]:
        self.runs += 1
        thoughts = [_graded(thought, source.grades) for thought in reading.thoughts(self.roles)]
        self.silent += not thoughts
        fresh = [thought for thought in thoughts if (thought.task, thought.thread, thought.at) not in seen]
        seen.update((thought.task, thought.thread, thought.at) for thought in fresh)
        self.forked += len(thoughts) - len(fresh)
        if (fresh or not thoughts) and reading.graph.started is not None:
            task = task_id(reading.graph.started.task)
            structure = structure_of(reading.graph, reading.run, task, self.roles)
            self.structures.append((source.name, structure))
        for thought in fresh:
            self._keep(source.name, thought)
            yield figures_of(thought, source=source.name, suite=source.suite)

    def _keep(self, source: str, thought: Thought) -> None:
        if not self.sampled:
            return
        name = f"{thought.run}/{thought.thread}"
        rank = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        item = (-rank, name, source, thought)  # the heap's first is the one to lose
        if len(self._kept) < self.sampled:
            heapq.heappush(self._kept, item)
        else:
            heapq.heappushpop(self._kept, item)

    def kept(self) -> list[tuple[str, Thought]]:
        """The thoughts whose text was kept, with the names of their sources, by name."""
        return [(source, thought) for _, _, source, thought in sorted(self._kept, key=lambda item: item[1])]
