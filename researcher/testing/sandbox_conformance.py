"""What every Sandbox must do, as attacks: `await run_attack(sandbox, ATTACKS["endless_loop"])`.

Each attack is one script with the ends it may come to. After each, `print(2)` must work within five seconds, and
this process must not have grown. A sandbox for one language or one host may have further attacks of its own.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import anyio

from researcher.protocols import ExecRequest, ExecResult, Sandbox

SECONDS = 1.0
"""The time limit of an attack's request."""

MEMORY = 64 * 2**20
OUTPUT = 10_000
GROWTH = 50 * 2**20
"""Bytes by which this process may grow during an attack."""


class Attack(NamedTuple):
    """A hostile script, the statuses it may end with, and what its output must not contain."""

    code: str
    ends: frozenset[str]
    never: str = ""


def _attack(code: str, ends: str, never: str = "") -> Attack:
    return Attack(code, frozenset(ends.split()), never)


ATTACKS: dict[str, Attack] = {
    "endless_loop": _attack("while True: pass", "timeout"),
    "endless_loop_that_catches": _attack(
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout"
    ),
    "finally_that_never_ends": _attack("try:\n  1/0\nfinally:\n  while True: pass", "timeout"),
    "sleep_flood": _attack("import time\nwhile True: time.sleep(1)", "timeout error"),
    "memory_bomb": _attack("x = []\nwhile True: x.append('a' * 1000000)", "oom killed"),
    "memory_bomb_at_once": _attack("x = 'a' * 10**10\nprint(len(x))", "oom error killed"),
    "doubling": _attack("s = 'ab'\nwhile True: s = s + s", "oom killed"),
    "big_integer": _attack("x = 9 ** 9 ** 9\nprint(x > 0)", "oom timeout error killed"),
    "output_flood": _attack("while True: print('x' * 1000)", "output_limit"),
    "many_tiny_lines": _attack("while True: print()", "output_limit"),
    "one_huge_line": _attack("print('x' * 10000000)", "output_limit"),
    "huge_value": _attack(
        "a = [0] * 1000\nb = [a] * 1000\nc = [b] * 1000\nc", "ok timeout oom output_limit error killed"
    ),
    "recursion": _attack("def f(): return f()\nf()", "error oom killed"),
    "nested_source": _attack("x = " + "(" * 20_000, "error"),
    "nested_signs": _attack("x = " + "-" * 20_000 + "1", "error"),
    "megabytes_of_source": _attack("x = 1\n" * 2_000_000, "error timeout oom"),
    "lone_surrogate_in_source": _attack("print('\ud800')", "error"),
    "nul_in_source": _attack("print('a\0b')", "error ok"),
    "odd_characters_printed": _attack("print('\\ud800 \\x00 \\x1b[31m \\u202e')", "ok error"),
    "leaves_by_exit": _attack("import os\nos._exit(3)", "error killed"),
    "import_os_shell": _attack("import os\nos.system('echo pwn' + 'ed')", "error ok", "pwned"),
    "import_subprocess": _attack("import subprocess\nprint(subprocess.run('id'))", "error", "uid="),
    "environment": _attack("import os\nprint(os.environ['RESEARCHER_CONFORMANCE_SECRET'])", "error", "hunter2"),
    "read_host_file": _attack("print(open('/etc/passwd').read())", "error", "root:"),
    "dunder_walk": _attack("print(().__class__.__base__.__subclasses__())", "error", "Popen"),
    "globals_walk": _attack("print((lambda: 0).__globals__['__builtins__'].__import__)", "error", "function"),
    "socket": _attack("import socket\nsocket.create_connection(('127.0.0.1', 9)).close()\nprint('conn' + 'ected')",
                      "error", "connected"),
    "fork_bomb": _attack("import os\nwhile True: os.fork()", "error timeout oom killed"),
    "regular_expression": _attack("import re\nre.match(r'(a|a)*$', 'a' * 60 + 'b')\nprint('done')", "ok timeout error"),
}  # fmt: skip
"""Attacks that any backend for Python must survive, by name."""


async def run_attack(sandbox: Sandbox, attack: Attack) -> ExecResult:
    """The attack's result, once it ended as it must and the sandbox still works."""
    before = _memory()
    request = ExecRequest(attack.code, seconds=SECONDS, memory=MEMORY, output=OUTPUT)
    with anyio.fail_after(SECONDS + 9.0):
        result = await sandbox.run(request)
    assert result.status in attack.ends, f"ended as {result.status} ({result.error[:200]}), not {sorted(attack.ends)}"
    assert len(result.stdout) <= OUTPUT, f"{len(result.stdout)} characters of output passed a limit of {OUTPUT}"
    assert not attack.never or attack.never not in result.stdout, f"the output has {attack.never!r}"
    json.dumps([result.stdout, result.error]).encode("ascii")
    (result.stdout + result.error).encode("utf-8")
    assert _memory() - before <= GROWTH, f"this process grew by {(_memory() - before) / 2**20:.0f} MB"
    await check_alive(sandbox)
    return result


async def check_alive(sandbox: Sandbox) -> None:
    """`print(2)` gives 2 within five seconds."""
    with anyio.fail_after(5.0):
        result = await sandbox.run(ExecRequest("print(2)"))
    assert (result.status, result.stdout) == ("ok", "2\n"), f"print(2) gave {result}"


async def check_basics(sandbox: Sandbox) -> None:
    """A script's output, its error, its language and its privacy from the next script."""
    await check_alive(sandbox)
    failed = await sandbox.run(ExecRequest("print('before')\n1/0"))
    assert failed.status == "error", f"1/0 ended as {failed.status}"
    assert failed.stdout == "before\n", "what was printed before an error is lost"
    assert "ZeroDivisionError" in failed.error, f"the error is not named: {failed.error}"
    other = await sandbox.run(ExecRequest("say 2", language="no-such-language"))
    assert other.status == "unsupported", f"an unknown language ended as {other.status}"
    await sandbox.run(ExecRequest("left_behind = 'secret'"))
    for _ in range(4):
        next_one = await sandbox.run(ExecRequest("print(left_behind)"))
        assert next_one.status == "error", "a script sees a variable of the script before it"


async def check_cancel(sandbox: Sandbox) -> None:
    """A cancelled script ends at once and leaves its place to the next."""
    for _ in range(8):
        with anyio.move_on_after(0.05) as scope:
            await sandbox.run(ExecRequest("while True: pass", seconds=20.0))
        assert scope.cancelled_caught, "an endless loop came back"
    await check_alive(sandbox)


def _memory() -> int:
    """The resident size of this process in bytes; 0 where it cannot be known."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
