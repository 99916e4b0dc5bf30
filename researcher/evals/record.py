"""`Result`: what one run came to, as a line of `results.jsonl`; `ResultFile` appends them and knows what is there."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import msgspec

from researcher.errors import UserError
from researcher.types import Frozen, Outcome, VerdictStatus


class Key(NamedTuple):
    """What names a run of an evaluation. `budget` None: unlimited."""

    problem: str
    strategy: str
    budget: int | None
    seed: int


class Sample(Frozen, frozen=True, kw_only=True):
    """A whole answer that a thread of the run came to. `answer` None: it ended without one that can be read.

    `prompt` and `completion`: the thread's own tokens; `score`: its scorer's, where it has one.
    """

    answer: str | None = None
    canonical: str = ""
    status: VerdictStatus = VerdictStatus.WRONG
    prompt: int = 0
    completion: int = 0
    score: float | None = None


class Result(Frozen, frozen=True, kw_only=True):
    """One run: how its answer was judged, what it used, and what its threads came to.

    `status` is `unverified` where the run broke or no verdict could be had: that is never "wrong". `failures` counts
    threads by the boundary that broke; `cancelled_tokens` are those of threads that were stopped (in `prompt` and
    `completion` too); `merged` counts the steps that came to a state another had come to.
    """

    problem: str
    strategy: str
    budget: int | None = None
    seed: int = 0
    status: VerdictStatus
    answer: str | None = None
    reason: str = ""
    outcome: Outcome
    detail: str = ""
    limit: str | None = None
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    calls: int = 0
    seconds: float = 0.0
    threads: Mapping[str, int] = {}
    unparsable: int = 0
    truncated: int = 0
    failures: Mapping[str, int] = {}
    cancelled_tokens: int = 0
    states: int = 0
    merged: int = 0
    samples: tuple[Sample, ...] = ()

    @property
    def key(self) -> Key:
        """What names this run."""
        return Key(self.problem, self.strategy, self.budget, self.seed)

    @property
    def broken(self) -> bool:
        """Whether something outside the strategy failed, so that the run says nothing and is worth another try."""
        return self.outcome is Outcome.FAILED


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Result)


def read_results(path: Path) -> list[Result]:
    """The results in a file, the last line of each run. Raises UserError with the line that cannot be read.

    A last line without an end is what a kill left behind, and no result.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    found: dict[Key, Result] = {}
    for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
        try:
            result = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{number}: not a result of an evaluation ({error}).") from None
        found[result.key] = result
    return list(found.values())


class ResultFile:
    """Appends results, each at once: a kill loses no run that has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{self._path} is open in another evaluation; wait for it, or use --out.") from None
        size = self._file.seek(0, 2)
        if size and (end := _end_of_lines(self._path.read_bytes())) < size:
            self._file.truncate(end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def add(self, result: Result) -> None:
        """Append a result."""
        assert self._file is not None
        self._file.write(_encode(result) + b"\n")
        self._file.flush()


def _end_of_lines(data: bytes) -> int:
    return data.rfind(b"\n") + 1
