"""Runs a server for as long as the process that asked for it lives; a program of its own, on the standard library.

`python keeper.py COMMAND...`: the caller holds the other end of standard input. When it closes, be it because the
caller is done or because it was killed, the command's whole process group is told to end and, after a while, killed.
The caller starts this in a session of its own, so that a Ctrl-C in the terminal does not reach the server: whether
calls are drained first is the caller's decision.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE = 10.0  # seconds between the request to end and the kill


def main(command: list[str]) -> int:
    """Run the command; its exit code, where it ends by itself."""
    # The request to end goes to the whole group, which this process leaves last. (A handler, unlike "ignore", is not
    # inherited by the command.)
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    code = child.wait()
    _end_group(signal.SIGTERM)  # what the command may have left behind
    return code if code >= 0 else 128 - code


def _watch(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _end_group(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    _end_group(signal.SIGKILL)  # this process with it


def _end_group(number: int) -> None:
    os.killpg(os.getpgrp(), number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
