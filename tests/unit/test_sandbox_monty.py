from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from researcher.errors import SandboxFault
from researcher.protocols import ExecRequest
from researcher.testing.fake_sandbox import FakeSandbox
from researcher.testing.interpreter_attacks import INTERPRETER_ATTACKS
from researcher.testing.sandbox_conformance import (
    ATTACKS,
    check_alive,
    check_basics,
    check_cancel,
    check_output,
    run_attack,
)

pytest.importorskip("pydantic_monty")
from researcher_sandbox.monty import MontySandbox
from researcher_sandbox.monty_cell import MAX_CODE, MAX_ERROR, taken
from researcher_sandbox.output import FLOOD

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sandbox() -> AsyncIterator[MontySandbox]:
    sandbox = MontySandbox()
    yield sandbox
    await sandbox.aclose()


async def test_scripts_print_fail_and_see_nothing_of_each_other(sandbox: MontySandbox) -> None:
    await check_basics(sandbox)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ATTACKS))
async def test_after_the_attack_print_still_works(
    name: str, sandbox: MontySandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESEARCHER_CONFORMANCE_SECRET", "hunter2")
    await run_attack(sandbox, ATTACKS[name])


async def test_what_is_printed_is_cut_in_the_middle(sandbox: MontySandbox) -> None:
    await check_output(sandbox)


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERPRETER_ATTACKS)
async def test_attack(name: str, sandbox: MontySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEARCHER_CONFORMANCE_SECRET", "hunter2")
    result = await run_attack(sandbox, INTERPRETER_ATTACKS[name])
    assert "pwned" not in result.stdout
    assert len(_children()) <= 3, "more than two workers and what watches them"


@pytest.mark.slow
async def test_attack_15_nothing_is_kept_and_nothing_put_in(sandbox: MontySandbox) -> None:
    for request in (ExecRequest("print(2)", keep=("/etc/passwd",)), ExecRequest("print(2)", files={"../x": b"x"})):
        result = await sandbox.run(request)
        assert (result.status, result.stdout) == ("unsupported", "")
        assert result.error == "the embedded sandbox has no files; use --sandbox docker"


@pytest.mark.slow
async def test_attack_19_what_was_printed_before_the_kill_comes_back(sandbox: MontySandbox) -> None:
    result = await sandbox.run(ExecRequest("print('begun')\nwhile True: pass", seconds=1.0))
    assert (result.status, result.stdout) == ("timeout", "begun\n")


@pytest.mark.slow
async def test_attack_27_nothing_of_a_script_is_there_for_the_next() -> None:
    sandbox = MontySandbox(processes=1)  # so that the next is in the same process
    changes = "print = len\nlen = None\nclass int: pass\ndef sum(x): return 'pwned'\nimport math as json\nx = 1"
    assert (await sandbox.run(ExecRequest(changes))).status == "ok"
    result = await sandbox.run(ExecRequest("import json\nprint(len('ab'), sum([1]), int('3'), json.dumps([1]))"))
    assert (result.status, result.stdout) == ("ok", "2 1 3 [1]\n")
    assert (await sandbox.run(ExecRequest("print(x)"))).status == "error"
    await sandbox.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["idle", "script", "session"])
def test_attack_35_a_killed_host_leaves_no_worker(doing: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    host = subprocess.Popen([sys.executable, "-c", HOST, doing], stdout=subprocess.PIPE, env=environment)
    assert host.stdout is not None
    assert host.stdout.readline() == b"begun\n"
    workers = _children(host.pid)
    assert len(workers) >= 2, "a worker and what watches it"
    workers |= {gate for worker in workers for gate in _children(worker)}
    assert len(workers) >= 3, "and its gate"
    host.kill()
    host.communicate()
    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(_gone, workers)


@pytest.mark.slow
async def test_attack_36_a_worker_killed_in_mid_script_is_said_and_nothing_runs_again(sandbox: MontySandbox) -> None:
    results = []

    async def one() -> None:
        results.append(await sandbox.run(ExecRequest("print('begun')\nwhile True: pass", seconds=60.0)))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        workers = await _busy()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    assert [(each.status, each.error) for each in results] == [("killed", "the worker died")]
    await check_alive(sandbox)


@pytest.mark.slow
async def test_attack_39_a_worker_that_keeps_no_limit_is_killed(sandbox: MontySandbox) -> None:
    results = []

    async def one() -> None:
        results.append(await sandbox.run(ExecRequest("while True: pass", seconds=5.0)))

    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            for pid in await _busy():
                os.kill(pid, signal.SIGSTOP)
    assert [each.status for each in results] == ["timeout"]
    await check_alive(sandbox)


@pytest.mark.slow
async def test_a_cancelled_script_gives_its_worker_back(sandbox: MontySandbox) -> None:
    await check_cancel(sandbox)


@pytest.mark.slow
async def test_more_scripts_than_workers_all_run(sandbox: MontySandbox) -> None:
    results: list[str] = []

    async def one(i: int) -> None:
        results.append((await sandbox.run(ExecRequest(f"print({i} * 2)"))).stdout)

    async with anyio.create_task_group() as group:
        for i in range(200):
            group.start_soon(one, i)
    assert sorted(int(each) for each in results) == [2 * i for i in range(200)]


async def test_an_error_that_a_script_raises_itself_is_no_limit(sandbox: MontySandbox) -> None:
    statuses = [
        (await sandbox.run(ExecRequest(f"raise {name}('x')"))).status for name in ("TimeoutError", "MemoryError")
    ]
    assert statuses == ["error", "error"]


@pytest.mark.slow
async def test_a_flood_ends_the_script_and_its_beginning_is_kept(sandbox: MontySandbox) -> None:
    result = await sandbox.run(ExecRequest("print('begin')\nwhile True: print('x' * 100)", output=1_000))
    assert (result.status, result.truncated) == ("output_limit", True)
    assert len(result.stdout) <= 1_000
    assert result.total > FLOOD * 1_000
    assert result.stdout.startswith("begin\nxxx")


@pytest.mark.parametrize("last", ["x or \\", "x,\\", "x or \\\r", "x or \\\n\\", "lambda: \\"])
async def test_no_value_comes_back_whatever_the_last_line_is(
    sandbox: MontySandbox, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    values: list[object] = []

    class Watched:
        def __init__(self, session: Any) -> None:
            self._session, self.worker_pid = session, session.worker_pid

        def feed_run(self, code: str, **given: Any) -> None:
            values.append(self._session.feed_run(code, **given))

        def __exit__(self, *error: Any) -> None:
            self._session.__exit__(*error)

    monkeypatch.setattr("researcher_sandbox.monty.taken", lambda *given, **options: Watched(taken(*given, **options)))
    result = await sandbox.run(ExecRequest(f"x = ['large']\n{last}"))
    assert result.status in ("ok", "error")
    assert values in ([], [None])
    await sandbox.run(ExecRequest("1"))
    assert values[-1:] == [None]


async def test_a_missing_module_names_the_sandbox_that_may_have_it(sandbox: MontySandbox) -> None:
    result = await sandbox.run(ExecRequest("import numpy"))
    assert result.error == "module numpy is not in the embedded sandbox; use --sandbox docker"


async def test_missing_syntax_names_the_sandbox_that_has_it(sandbox: MontySandbox) -> None:
    result = await sandbox.run(ExecRequest("def f():\n  yield 1"))
    assert result.error == "the embedded sandbox does not support yield expressions; use --sandbox docker"


@pytest.mark.slow
async def test_the_text_of_an_error_is_cut_and_a_huge_one_ends_the_worker(sandbox: MontySandbox) -> None:
    long = await sandbox.run(ExecRequest("raise ValueError('x' * 1_000_000)"))
    assert (long.status, long.error[:14]) == ("error", "ValueError: xx")
    assert len(long.error) < 2 * MAX_ERROR
    huge = await sandbox.run(ExecRequest("print('begun')\nraise ValueError('x' * 9_000_000)"))
    assert (huge.status, huge.stdout) == ("killed", "begun\n")
    assert huge.error == "an error, or a call for what is not here, of more than 8 MB"
    await check_alive(sandbox)


async def test_an_error_says_its_line(sandbox: MontySandbox) -> None:
    result = await sandbox.run(ExecRequest("x = 1\nx / 0"))
    assert result.error == "ZeroDivisionError: division by zero (line 2)"


async def test_a_folder_in_which_nothing_can_be_started_is_said(
    sandbox: MontySandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(SandboxFault, match=r"did not start: no program can be started in .* set TMPDIR"):
            await sandbox.run(ExecRequest("print(2)"))
    await check_alive(sandbox)


async def test_code_over_the_cap_is_refused_without_a_worker() -> None:
    result = await MontySandbox().run(ExecRequest("#" * (MAX_CODE + 1)))
    assert result.status == "error"
    assert str(MAX_CODE) in result.error


@pytest.mark.slow
async def test_a_worker_killed_from_outside_is_replaced(sandbox: MontySandbox) -> None:
    await check_alive(sandbox)
    for pid in _children():
        os.kill(pid, signal.SIGKILL)
    statuses = {(await sandbox.run(ExecRequest("print(2)"))).status for _ in range(4)}
    assert statuses <= {"ok", "killed"}
    await check_alive(sandbox)


@pytest.mark.slow
async def test_closing_leaves_no_process() -> None:
    sandbox = MontySandbox()
    before = _children()
    await check_alive(sandbox)
    made = _children() - before
    assert made
    gates = {gate for worker in made for gate in _children(worker)}
    await sandbox.aclose()
    assert _children() == before
    await _gone(gates)


@pytest.mark.slow
def test_a_process_that_ran_a_loop_exits_cleanly() -> None:
    code = (
        "import anyio\n"
        "from researcher.protocols import ExecRequest\n"
        "from researcher_sandbox.monty import MontySandbox\n"
        "async def main():\n"
        "    sandbox = MontySandbox()\n"
        "    print((await sandbox.run(ExecRequest('while True: pass', seconds=0.2))).status)\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "timeout\n", "")


async def test_the_fake_answers_from_its_table_and_remembers() -> None:
    fake = FakeSandbox({"print(2)": "2\n"})
    await check_alive(fake)
    assert (await fake.run(ExecRequest("1/0"))).status == "error"
    assert [request.code for request in fake.requests] == ["print(2)", "1/0"]
    await fake.aclose()
    with pytest.raises(SandboxFault):
        await fake.run(ExecRequest("print(2)"))


async def test_the_conformance_suite_catches_a_sandbox_that_keeps_no_limit() -> None:
    fake = FakeSandbox(lambda request: "2\n" if request.code == "print(2)" else "x" * 100_000)
    with pytest.raises(AssertionError, match="ended as ok"):
        await run_attack(fake, ATTACKS["output_flood"])
    with pytest.raises(AssertionError):
        await check_basics(fake)


HOST = """
import sys

import anyio
from researcher.protocols import ExecRequest
from researcher_sandbox.monty import MontySandbox

LOOP = ExecRequest("print('begun')\\nwhile True: pass", seconds=60.0)


async def main(doing: str) -> None:
    sandbox = MontySandbox()
    session = await sandbox.session()
    await sandbox.run(ExecRequest("print(1)"))
    async with anyio.create_task_group() as group:
        if doing != "idle":
            group.start_soon(sandbox.run if doing == "script" else session.run, LOOP)
            await anyio.sleep(0.3)
        print("begun", flush=True)
        await anyio.sleep_forever()


anyio.run(main, sys.argv[1])
"""


async def _busy() -> set[int]:
    """The workers of this process, once one of them is computing."""
    first: dict[int, int] = {}
    with anyio.fail_after(20.0):
        while not any(_ticks(pid) > ticks + 2 for pid, ticks in first.items()):
            for pid in _children():
                if _name(pid).startswith("monty"):
                    first.setdefault(pid, _ticks(pid))
            await anyio.sleep(0.02)
    return set(first)


async def _gone(workers: set[int]) -> None:
    """Return when none of these processes is there. Raises TimeoutError."""
    with anyio.fail_after(2.0):
        while any(_alive(pid) for pid in workers):  # noqa: ASYNC110  (nothing tells of the end of another's child)
            await anyio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _ticks(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    except OSError:
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _children(parent: int | None = None) -> set[int]:
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == (parent or os.getpid()) and fields[0] != "Z":
            found.add(int(status.parent.name))
    return found
