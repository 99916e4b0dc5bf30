"""`jsonl:PATH`: problems from a local file, one JSON object a line, in a published format that is recognised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from researcher.errors import UserError
from researcher.evals.formats import FORMATS, Format, Record, Unfit, format_of, plain_fields
from researcher.evals.problem import Problem
from researcher.protocols import Verifier


class LocalFile:
    """The problems of a file, all in the format of its first line. Raises UserError with the line that is broken."""

    verifiers: Mapping[str, Verifier] = {}

    def __init__(self, path: str) -> None:
        if not path:
            raise UserError("The suite jsonl lacks its file: write jsonl:PATH.")
        self._path = Path(path).expanduser()
        self.name = f"jsonl:{self._path}"
        self.format, self._problems = _read(self._path)

    @property
    def size(self) -> int:
        """How many problems the file has."""
        return len(self._problems)

    def problems(self, count: int) -> list[Problem]:
        """The first problems, in the file's order."""
        return self._problems[:count]


def _read(path: Path) -> tuple[Format, list[Problem]]:
    found: Format | None = None
    problems: list[Problem] = []
    for number, record in _records(path):
        if found is None:
            found = format_of(record)
            if found is None:
                known = "; ".join(f"{each.name} ({', '.join(each.fields)})" for each in FORMATS)
                fields = ", ".join(sorted(record)) or "none"
                raise UserError(f"{path}:{number}: no known format has these fields: {fields}. There are: {known}.")
        try:
            if not found.fits(record):
                raise Unfit("unlike the first line" if len(problems) else "its fields are missing")
            problems.append(found.read(str(number), record))
        except Unfit as why:
            raise UserError(f"{path}:{number}: not a {found.name} record: {why}.") from None
    if found is None:
        raise UserError(f"{path} is empty; it needs one JSON object a line.")
    return found, problems


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    """The number of each line that is not blank, and its record with plain field names."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a JSONL file.") from None
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise UserError(f"{path}:{number}: not UTF-8 text.") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error}).") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: a JSON object is wanted, and this is a {type(record).__name__}.")
        yield number, plain_fields(record)
