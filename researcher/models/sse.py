"""Server-sent events out of byte chunks of any size; pure, no I/O."""

from __future__ import annotations


class EventParser:
    """Feed it bytes, get the data of each complete event; a character split across chunks stays whole."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of an unfinished line
        self._data: list[bytes] = []
        self._cr = False  # the last chunk ended in CR: an LF at the start of the next belongs to it

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events this chunk completes."""
        if self._cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._cr = chunk.endswith(b"\r") or (self._cr and not chunk)
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *lines = chunk.split(b"\n")
        self._rest.append(first)
        events: list[bytes] = []
        for line in lines:
            self._line(b"".join(self._rest), events)
            self._rest = [line]
        return events

    def close(self) -> list[bytes]:
        """The data of a last event whose blank line never came."""
        events: list[bytes] = []
        self._line(b"".join(self._rest), events)
        self._line(b"", events)
        self._rest = []
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line and self._data:
            events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data = []
