"""What every Sandbox must do: `await check_basics(sandbox)`, `await run_attack(sandbox, ATTACKS["endless_loop"])`.

Each attack is one script with the ends it may come to. After each, `print(2)` must work within five seconds, and
this process must not have grown, not for a moment either. A sandbox for one language or one host may have further
attacks of its own.

`check_basics`, `check_output`, `check_session` and `check_cancel` are for every backend whose scripts are Python;
`check_files` for one whose scripts have a working directory, `check_language` once for each further language.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import anyio

from researcher.errors import SandboxFault
from researcher.protocols import ExecRequest, ExecResult, Sandbox, Session

SECONDS = 1.0
"""The time limit of an attack that has no other end."""

PATIENCE = 15.0
"""That of an attack which another limit has to end, on a busy machine too."""

MEMORY = 64 * 2**20
OUTPUT = 10_000
GROWTH = 50 * 2**20
"""Bytes by which this process may grow during an attack, for a moment too where the system tells."""


class Attack(NamedTuple):
    """A hostile script, the statuses it may end with, what its output must not contain, or all that it may be."""

    code: str
    ends: frozenset[str]
    never: str = ""
    language: str = "python"
    only: str | None = None


def attack(code: str, ends: str, never: str = "", language: str = "python") -> Attack:
    """The attack whose ends are these words."""
    return Attack(code, frozenset(ends.split()), never, language)


ATTACKS: dict[str, Attack] = {
    "endless_loop": attack("while True: pass", "timeout"),
    "endless_loop_that_catches": attack(
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout"
    ),
    "finally_that_never_ends": attack("try:\n  1/0\nfinally:\n  while True: pass", "timeout"),
    "sleep_flood": attack("import time\nwhile True: time.sleep(1)", "timeout error"),
    "memory_bomb": attack("x = []\nwhile True: x.append('a' * 1000000)", "oom killed"),
    "memory_bomb_at_once": attack("x = 'a' * 10**10\nprint(len(x))", "oom error killed"),
    "doubling": attack("s = 'ab'\nwhile True: s = s + s", "oom killed"),
    "big_integer": attack("x = 9 ** 9 ** 9\nprint(x > 0)", "oom timeout error killed"),
    "output_flood": attack("while True: print('x' * 1000)", "output_limit"),
    "many_tiny_lines": attack("while True: print()", "output_limit"),
    "one_huge_line": attack("print('x' * 10000000)", "output_limit"),
    "huge_value": attack(
        "a = [0] * 1000\nb = [a] * 1000\nc = [b] * 1000\nc", "ok timeout oom output_limit error killed"
    ),
    "recursion": attack("def f(): return f()\nf()", "error oom killed"),
    "nested_source": attack("x = " + "(" * 20_000, "error"),
    "nested_signs": attack("x = " + "-" * 20_000 + "1", "error"),
    "megabytes_of_source": attack("x = 1\n" * 2_000_000, "error timeout oom"),
    "lone_surrogate_in_source": attack("print('\ud800')", "error"),
    "nul_in_source": attack("print('a\0b')", "error ok"),
    "odd_characters_printed": attack("print('\\ud800 \\x00 \\x1b[31m \\u202e')", "ok error"),
    "leaves_by_exit": attack("import os\nos._exit(3)", "error killed"),
    "import_os_shell": attack("import os\nos.system('echo pwn' + 'ed')", "error ok", "pwned"),
    "import_subprocess": attack("import subprocess\nprint(subprocess.run('id'))", "error", "uid="),
    "environment": attack("import os\nprint(os.environ['RESEARCHER_CONFORMANCE_SECRET'])", "error", "hunter2"),
    "read_host_file": attack("print(open('/etc/passwd').read())", "error", "root:"),
    "dunder_walk": attack("print(().__class__.__base__.__subclasses__())", "error", "Popen"),
    "globals_walk": attack("print((lambda: 0).__globals__['__builtins__'].__import__)", "error", "function"),
    "socket": attack("import socket\nsocket.create_connection(('127.0.0.1', 9)).close()\nprint('conn' + 'ected')",
                      "error", "connected"),
    "fork_bomb": attack("import os\nwhile True: os.fork()", "error timeout oom killed"),
    "regular_expression": attack("import re\nre.match(r'(a|a)*$', 'a' * 60 + 'b')\nprint('done')", "ok timeout error"),
}  # fmt: skip
"""Attacks that any backend for Python must survive, by name."""


async def run_attack(sandbox: Sandbox, attack: Attack, *, memory: int = MEMORY) -> ExecResult:
    """The attack's result, once it ended as it must and the sandbox still works."""
    before = _memory(anew=True)
    seconds = SECONDS if "timeout" in attack.ends else PATIENCE
    request = ExecRequest(attack.code, attack.language, seconds=seconds, memory=memory, output=OUTPUT)
    with anyio.fail_after(seconds + 9.0):
        result = await sandbox.run(request)
    assert result.status in attack.ends, f"ended as {result.status} ({result.error[:200]}), not {sorted(attack.ends)}"
    size = len(result.stdout.encode("utf-8"))
    assert size <= OUTPUT, f"{size} bytes of output passed a limit of {OUTPUT}"
    assert attack.only in (None, result.stdout), f"the output is {result.stdout[-500:]!r}, not {attack.only!r}"
    assert not attack.never or attack.never not in result.stdout, f"the output has {attack.never!r}"
    json.dumps([result.stdout, result.error]).encode("ascii")
    result.error.encode("utf-8")
    grown = max(after - at_first for at_first, after in zip(before, _memory(), strict=True))
    assert grown <= GROWTH, f"this process grew by {grown / 2**20:.0f} MB"
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


async def check_output(sandbox: Sandbox) -> None:
    """What is printed comes back whole up to the limit; above it the head, a line that says so, and the count."""
    whole = await sandbox.run(ExecRequest("print('\u00e4' * 50)", output=101))
    assert (whole.stdout, whole.truncated, whole.total) == ("\u00e4" * 50 + "\n", False, 101), f"within it: {whole}"
    code = "print('begin')\nfor i in range(100): print('x' * 99)\nprint('end')"
    cut = await sandbox.run(ExecRequest(code, output=1_000))
    assert cut.status == "ok", f"output over the limit, but no flood, ended as {cut.status}"
    assert cut.truncated, "output over the limit is not said to be cut"
    assert cut.total == 10_010, f"10,010 bytes were printed, not {cut.total}"
    assert len(cut.stdout.encode("utf-8")) <= 1_000, "the text that was kept is over the limit"
    assert cut.stdout.startswith("begin\n"), "the head is lost"
    assert cut.stdout.endswith("end\n"), "the tail is lost"
    assert "left out" in cut.stdout, "no line says that something was left out"
    none = await sandbox.run(ExecRequest("print('x' * 10)", output=0))
    assert (none.stdout, none.truncated) == ("", True), f"a limit of nothing gave {none}"


async def check_session(sandbox: Sandbox) -> None:
    """Cells share their names, see no other session's or script's, survive an error, and end with the session."""
    one, two = await sandbox.session(), await sandbox.session()
    try:
        assert (await one.run(ExecRequest("kept = 20"))).status == "ok", "the first cell failed"
        assert (await one.run(ExecRequest("print(kept + 1)"))).stdout == "21\n", "a name is lost between two cells"
        failed = await one.run(ExecRequest("kept = 30\nprint('before')\n1/0"))
        assert (failed.status, failed.stdout) == ("error", "before\n"), f"a cell that fails gave {failed}"
        assert (await one.run(ExecRequest("print(kept)"))).stdout == "30\n", "a name is lost with an error"
        assert (await two.run(ExecRequest("print(kept)"))).status == "error", "a session sees another's names"
        assert (await sandbox.run(ExecRequest("print(kept)"))).status == "error", "a script sees a session's names"
        await _check_lost(two)
        assert (await one.run(ExecRequest("print(kept)"))).stdout == "30\n", "a session is lost with another"
    finally:
        await one.aclose()
        await two.aclose()
    await _refuses(one, "a closed session")
    await check_alive(sandbox)


async def _check_lost(session: Session) -> None:
    """A cell without an end is stopped, and then either its session is lost or it goes on; it never hangs."""
    with anyio.fail_after(SECONDS + 9.0):
        late = await session.run(ExecRequest("x = 1\nwhile True: pass", seconds=SECONDS))
        assert late.status == "timeout", f"a cell without an end ended as {late.status}"
        try:
            after = await session.run(ExecRequest("print(x)"))
        except SandboxFault:
            await _refuses(session, "a lost session")
        else:
            assert after.stdout == "1\n", f"a session that goes on after a timeout gave {after}"


async def _refuses(session: Session, what: str) -> None:
    try:
        again = await session.run(ExecRequest("print(1)"))
    except SandboxFault:
        return
    raise AssertionError(f"{what} ran a cell: {again}")


async def check_files(sandbox: Sandbox) -> None:
    """Files go in and come out unchanged; what is no regular file, or not there, is refused by name."""
    data = bytes(range(256))
    code = (
        "import os\n"
        "data = open('in/data.bin', 'rb').read()\n"
        "open('out.bin', 'wb').write(data[::-1])\n"
        "os.symlink('/etc/passwd', 'link')\n"
        "os.mkdir('folder')\n"
    )
    keep = ("out.bin", "link", "folder", "absent")
    done = await sandbox.run(ExecRequest(code, files={"in/data.bin": data}, keep=keep))
    assert done.status == "ok", f"reading a file that was put in ended as {done.status}: {done.error}"
    assert dict(done.files) == {"out.bin": data[::-1]}, f"what came out is {sorted(done.files)}"
    for name in keep[1:]:
        assert any(each.startswith(name) for each in done.refused), f"{name} is not refused by name: {done.refused}"
    for name in ("../out", "/tmp/out", ""):
        bad = await sandbox.run(ExecRequest("print(1)", files={name: b"x"}))
        assert bad.status == "error", f"a file named {name!r} was taken: {bad}"
    after = await sandbox.run(ExecRequest("open('in/data.bin')"))
    assert after.status == "error", "a script sees a file of the script before it"


async def check_language(sandbox: Sandbox, language: str, code: str, printed: str) -> None:
    """Code of another language runs and fails under the same limits, each a different status."""
    done = await sandbox.run(ExecRequest(code, language, seconds=10.0))
    assert (done.status, done.stdout) == ("ok", printed), f"{language} gave {done}"
    broken = await sandbox.run(ExecRequest("}{ no language is like this (", language, seconds=10.0))
    assert broken.status == "error", f"{language} that is none ended as {broken.status}"
    assert broken.error, "the error has no text"
    await check_alive(sandbox)


async def check_cancel(sandbox: Sandbox) -> None:
    """A cancelled script ends at once and leaves its place to the next; so does a cancelled cell, and its session."""
    for _ in range(8):
        with anyio.move_on_after(0.05) as scope:
            await sandbox.run(ExecRequest("while True: pass", seconds=20.0))
        assert scope.cancelled_caught, "an endless loop came back"
    await check_alive(sandbox)
    session = await sandbox.session()
    try:
        await session.run(ExecRequest("x = 1"))
        with anyio.move_on_after(0.05) as scope:
            await session.run(ExecRequest("while True: pass", seconds=20.0))
        assert scope.cancelled_caught, "an endless cell came back"
        await _refuses(session, "a session whose cell was cancelled")
    finally:
        await session.aclose()
    await check_alive(sandbox)


def _memory(*, anew: bool = False) -> tuple[int, int]:
    """The resident size of this process in bytes, and the most it was since it was asked for `anew`; 0 if unknown."""
    if anew:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    try:
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0, 0
