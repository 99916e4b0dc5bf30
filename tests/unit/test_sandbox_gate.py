from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from researcher_sandbox import monty_gate
from researcher_sandbox.monty_gate import MESSAGE


def through(data: bytes) -> bytes:
    """What a worker's reader gets of these bytes."""
    command = [sys.executable, "-I", "-S", monty_gate.__file__, "/bin/cat"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=False, timeout=60).stdout


def message(length: int) -> bytes:
    return length.to_bytes(4, "little") + b"x" * length


def test_messages_pass_unchanged_up_to_the_longest() -> None:
    sent = b"".join(message(length) for length in (0, 1, 2**16 - 4, 0, 2**16, MESSAGE, 3))
    assert through(sent) == sent


@pytest.mark.parametrize("length", [MESSAGE + 1, 2**32 - 1])
def test_nothing_passes_from_a_longer_one_on(length: int) -> None:
    before = message(5)
    got = through(before + length.to_bytes(4, "little") + b"x" * (MESSAGE + 1) + message(5))
    assert before.startswith(got)


def test_a_length_may_come_in_parts() -> None:
    sent = message(300) + message(MESSAGE + 1)
    (source, far), (read, target) = os.pipe(), os.pipe()
    gate = threading.Thread(target=monty_gate.copy, args=(source, target))
    gate.start()
    got = b""
    for at in range(307):  # each byte is through before the next is sent
        os.write(far, sent[at : at + 1])
        got += os.read(read, 10)
    os.write(far, sent[307:308])
    gate.join(10)
    assert not gate.is_alive(), "it takes a length that is too long"
    for each in (source, far, read, target):
        os.close(each)
    assert got == sent[:307]
