"""The `numeric` verifier: the answer equals the gold as mathematics, `1/2` as `0.5` as `\\frac12`.

Plain numbers are compared here, exactly. All else goes to math-verify in a process of its own, which is killed and
replaced when it is late; then the verdict is `unverified`, never "wrong".
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from fractions import Fraction
from time import monotonic

import anyio
import anyio.to_thread

from researcher.types import Task, Verdict, VerdictStatus

MAX_LENGTH = 1_000
"""Characters of an answer that can be right."""

SECONDS = 5.0
START_SECONDS = 60.0

_PLAIN = re.compile(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+)(\.\d+)?(?:/(\d+))?", re.ASCII)


def plain_number(text: str) -> Fraction | None:
    """The number a text is, if it is an integer, a decimal or a fraction of integers and nothing else."""
    match = _PLAIN.fullmatch(text.strip().removesuffix("."))
    if match is None:
        return None
    sign, whole, part, below = match.groups()
    if below is not None and (part is not None or int(below) == 0):
        return None
    value = Fraction(whole.replace(",", "") + (part or "")) / int(below or 1)
    return -value if sign == "-" else value


class Numeric:
    """Checks against `task.gold`; `seconds` is the time that one comparison may take."""

    name = "numeric"

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._worker = Worker(seconds)
        self._turn = anyio.CapacityLimiter(1)

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong, or unverified where the comparison could not run or did not end."""
        gold = task.gold
        if gold is None or not gold.strip():
            return self._verdict(None, "the task has no gold answer")
        if not answer.strip() or len(answer) > MAX_LENGTH:
            return self._verdict(False, f"empty, or longer than {MAX_LENGTH} characters")
        wanted, given = plain_number(gold), plain_number(answer)
        if wanted is not None and given is not None and (wanted == given or wanted.denominator == 1):
            return self._verdict(wanted == given, "another number")
        if importlib.util.find_spec("math_verify") is None:
            return self._verdict(None, "math-verify is not installed: pip install 'researcher-orchestrator[local]'")
        try:
            right = await self._compare(gold, answer)
        except (TimeoutError, OSError, ValueError) as error:
            return self._verdict(None, str(error))
        return self._verdict(right, "the gold answer cannot be read" if right is None else "not equal")

    async def _compare(self, gold: str, answer: str) -> bool | None:
        """The worker's word; a cancelled comparison takes the process with it, so that the next one need not wait."""
        async with self._turn:
            settled = False
            try:
                right = await anyio.to_thread.run_sync(self._worker.compare, gold, answer, abandon_on_cancel=True)
                settled = True
            finally:
                if not settled:
                    self._worker.abort()
        return right

    async def aclose(self) -> None:
        """End the process; it is started again if it is needed again."""
        await anyio.to_thread.run_sync(self._worker.stop)

    def _verdict(self, right: bool | None, reason: str) -> Verdict:
        if right is None:
            return Verdict(status=VerdictStatus.UNVERIFIED, by=self.name, reason=reason)
        status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
        return Verdict(status=status, by=self.name, score=float(right), reason="" if right else reason)


class Worker:
    """A math-verify process that starts with the first question; used by one thread at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        # Invariant: a question and its reply are one step; two threads never share the pipe.
        self._turn = threading.Lock()

    def compare(self, gold: str, answer: str) -> bool | None:
        """Whether they are equal; None if the gold cannot be read. Raises TimeoutError, OSError, ValueError."""
        with self._turn:
            process = self._started()
            question = json.dumps({"gold": gold, "answer": answer}) + "\n"
            settled = False
            try:
                assert process.stdin is not None
                process.stdin.write(question.encode("ascii"))
                process.stdin.flush()
                right = self._reply(process, self._seconds).get("right")
                settled = True
            finally:
                if not settled:
                    self._end()
            return right

    def abort(self) -> None:
        """End the process under whoever waits for it."""
        if (process := self._process) is not None:
            process.kill()

    def stop(self) -> None:
        """End the process if it runs."""
        with self._turn:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        process = subprocess.Popen(
            [sys.executable, "-m", "researcher_tools.verifiers.numeric_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._process = process
        weakref.finalize(self, _kill, process)
        try:
            self._reply(process, START_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            self._end()
            raise OSError(f"math-verify did not start: {error}") from error
        return process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, bool | None]:
        assert process.stdout is not None
        end, data = monotonic() + seconds, b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - monotonic()))
            if not ready:
                raise TimeoutError(f"the comparison did not end within {seconds:g} s")
            part = os.read(process.stdout.fileno(), 4096)
            if not part:
                raise OSError("the process that compares died on this answer")
            data += part
        reply: dict[str, bool | None] = json.loads(data)
        return reply

    def _end(self) -> None:
        if self._process is not None:
            _kill(self._process)
            self._process = None


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
