"""What a crash left half-written at the end of a write-ahead log: `pages(path)` before SQLite recovers it."""

from __future__ import annotations

from pathlib import Path
from struct import Struct

_HEADER = Struct(">8I")
_FRAME = Struct(">6I")


def pages(path: Path) -> int:
    """How many page images the log of this database holds, whole or not; 0 without a log.

    SQLite silently drops what follows the last commit that checks out. It says how many images it took
    (`PRAGMA wal_checkpoint`); the rest was torn. Images of an earlier round carry other salts and do not count.
    """
    log = Path(f"{path}-wal")
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return 0
            _, _, page, _, *salts, _, _ = _HEADER.unpack(head)
            count, at = 0, _HEADER.size
            while at < size:
                file.seek(at)
                frame = file.read(_FRAME.size)
                if len(frame) == _FRAME.size and list(_FRAME.unpack(frame)[2:4]) != salts:
                    break
                count += 1
                at += _FRAME.size + page
            return count
    except OSError:
        return 0
