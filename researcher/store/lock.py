"""`RunLock(path)` makes its holder the only writer of a run here, until it is released or its process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from researcher.errors import StoreError, StoreLocked


class RunLock:
    """An flock on `<path>.lock`, a file of its own.

    Closing any descriptor of the database file would drop the locks SQLite holds on it in this process; a second
    file cannot disturb them. The file stays: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        try:
            fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"run {path.stem}: cannot write in {path.parent} ({error.strerror}); choose a folder that is writable"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            by = f"process {holder}" if holder else "another process"
            raise StoreLocked(f"run {path.stem} is open in {by}; wait for it to end, or stop it") from error
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        except OSError:
            # A full disk: the lock holds without the number, which is only for the message.
            pass
        self._fd = fd

    def release(self) -> None:
        """Let others write; twice is once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
