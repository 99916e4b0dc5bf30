"""The command called in the process, for tests: `calling(capsys)("run", "...").out`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from researcher.cli.main import main


class Said(NamedTuple):
    """What a command gave: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


def calling(capsys: pytest.CaptureFixture[str], *first: str) -> Cli:
    """The command, whose arguments begin with `first`."""

    def call(*arguments: str | Path) -> Said:
        code = main([*first, *map(str, arguments)])
        return Said(code, *capsys.readouterr())

    return call
