"""Stands at a worker's pipe and lets no message through that would be costly to read: `python monty_gate.py MONTY ...`.

An uncaught error, a call for the host and a traceback's lines of source carry what the script put into them, up to all
of its memory, and the library that reads them has no limit for it and holds three copies. So this process has a child
copy the worker's messages, each a length and so many bytes, and then becomes the worker. At a message that is too long
the child leaves: the worker finds its pipe broken and says so with its exit status.

It is run by its path and imports nothing of the project, so that it starts at once.
"""

from __future__ import annotations

import os
import sys

MESSAGE = 8 * 2**20
"""Bytes of the longest message; what is printed comes in far smaller ones."""

BROKEN = 3
"""The exit status of a worker that could not write."""

_PIECE = 2**16


def copy(source: int, target: int) -> None:
    """Copy messages as they come, to the end of the source or up to one that is too long. Raises OSError."""
    head, left = b"", 0  # what has come of a message's length, and what is still to come of the message
    while data := os.read(source, _PIECE):
        at = 0
        while at < len(data):
            if left:
                step = min(left, len(data) - at)
                left -= step
            else:
                step = 4 - len(head)
                head += data[at : at + step]
                if len(head) == 4:
                    left, head = int.from_bytes(head, "little"), b""
                if left > MESSAGE:
                    return
            at += step
        while data:
            data = data[os.write(target, data) :]


def main(command: list[str]) -> None:
    """Become the worker, behind its gate."""
    source, target = os.pipe()
    if os.fork():
        os.dup2(target, 1)
        os.execv(command[0], command)
    os.close(0)
    os.close(target)
    try:  # noqa: SIM105  (contextlib would double what is imported here)
        copy(source, 1)
    except OSError:  # nobody reads any more
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
