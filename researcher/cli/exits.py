"""What the command's exit code says."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of all commands."""

    ANSWERED = 0
    ERROR = 1
    USAGE = 2
    UNVERIFIED = 3
    LIMIT = 4
    INTERRUPTED = 130
