"""The numbered attacks on the Docker sandbox, under runc and under gVisor; after each, it works and nothing is left.

35, the killed host, is in test_sandbox_sigkill.py; 40, the embedded sandbox, in tests/unit/test_sandbox_monty.py.
What a runtime cannot hold is what its own self-test says that it does not hold.
"""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import pytest
from researcher_sandbox.docker import DockerSandbox, container, owner, selftest
from researcher_sandbox.docker.client import Daemon
from researcher_sandbox.docker.container import MB, Limits, config
from researcher_sandbox.docker.wire import ChannelBroken
from researcher_sandbox.image import image_tag, version
from researcher_sandbox.registry import GVISOR

from researcher.errors import SandboxFault
from researcher.protocols import ExecRequest, ExecResult
from researcher.testing.sandbox_attacks import CONTAINER_ATTACKS, FINDS, LEAVES, PROCESSES
from researcher.testing.sandbox_conformance import ATTACKS, check_alive, run_attack

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

UNHELD = {"08_thirty_processes_of_20_mb": "memory", "09_full_tmpfs_and_memory": "memory", "12_inodes_gone": "tmpfs"}
"""Attacks whose end depends on a limit that a runtime may not know."""

GVISOR_ALLOWS = {
    "21_files_of_pid_1": "['environ', 'maps', 'auxv', 'fd']",
    "30_host_secrets": "['fuse']",
    "34_kernel_settings": "['/proc/self/oom_score_adj -1000']",
}
"""What its own kernel shows of PID 1, as the self-test says, and lets a process open or write without any effect."""

REAL_PYTHON = {"import_os_shell", "import_subprocess", "read_host_file", "dunder_walk", "globals_walk", "socket"}
"""Attacks on an interpreter's own walls, which a real Python does not have: the container is the wall."""

Survived = Callable[[DockerSandbox], Awaitable[None]]


@pytest.fixture(scope="module", params=["docker", "gvisor"])
async def sandbox(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[DockerSandbox]:
    """The container that was used last is the first to be used again: every script comes after the one before it."""
    runtime = request.getfixturevalue("gvisor_runtime") if request.param == "gvisor" else None
    request.getfixturevalue("sandbox_image")
    sandbox = DockerSandbox(runtime=runtime, containers=2, memory=512 * MB, run=f"attacks-{request.param}")
    await sandbox.run(ExecRequest("print(2)"))
    yield sandbox
    await sandbox.aclose()


def ours(daemon: Daemon, sandbox: DockerSandbox) -> list[dict[str, Any]]:
    """The containers of this sandbox that Docker knows, dead ones too."""
    label = f"{owner.RUN}={sandbox.limits.run}"
    found: list[dict[str, Any]] = daemon.client.containers(all=True, filters={"label": label})
    return found


def remove_all(daemon: Daemon, sandbox: DockerSandbox) -> None:
    """What a daemon's restart, or a person, does to the containers."""
    for each in ours(daemon, sandbox):
        container.remove(daemon.client, each["Id"])


async def nothing_is_left(sandbox: DockerSandbox, daemon: Daemon) -> None:
    """`print(2)` works, no process is there but the supervisor's three, and no container too many."""
    await check_alive(sandbox)
    seen = await sandbox.run(ExecRequest(PROCESSES))
    assert len(ast.literal_eval(seen.stdout)) == 3, f"processes besides the supervisor and its parents: {seen.stdout}"
    with anyio.move_on_after(container.REMOVE_SECONDS + 10):
        while len(ours(daemon, sandbox)) > 2:  # noqa: ASYNC110  (Docker has no event for us; a retired one is on its way)
            await anyio.sleep(0.05)
    assert len(found := ours(daemon, sandbox)) <= 2, [(each["State"], each["Status"]) for each in found]


@pytest.mark.parametrize("name", CONTAINER_ATTACKS)
async def test_attack(name: str, sandbox: DockerSandbox, docker_daemon: Daemon) -> None:
    attack = CONTAINER_ATTACKS[name]
    held = {check.name: check.held for check in (await sandbox.selftest()).checks}
    if not held[UNHELD.get(name, "pid1")]:
        attack = attack._replace(never="", ends=attack.ends | {"ok", "timeout"})
    if sandbox.limits.runtime == GVISOR and name in GVISOR_ALLOWS:
        attack = attack._replace(only=f"done: {GVISOR_ALLOWS[name]}\n")
    await run_attack(sandbox, attack, memory=MB * 64)
    await nothing_is_left(sandbox, docker_daemon)


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - REAL_PYTHON))
async def test_the_attacks_of_every_backend(
    name: str, sandbox: DockerSandbox, docker_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESEARCHER_CONFORMANCE_SECRET", "hunter2")
    attack = ATTACKS[name]
    if name == "many_tiny_lines":  # nothing under a megabyte is a flood here: the clock may come first
        attack = attack._replace(ends=attack.ends | {"timeout"})
    await run_attack(sandbox, attack)
    await nothing_is_left(sandbox, docker_daemon)


async def test_attack_15_what_is_kept_is_a_regular_file_of_some_size(
    sandbox: DockerSandbox, docker_daemon: Daemon
) -> None:
    code = (
        "import os\n"
        "def go(act):\n"
        "    try: act()\n"
        "    except OSError as error: print(error)\n"
        "go(lambda: open('sparse', 'wb').truncate(2**40))\n"
        "go(lambda: open('large', 'wb').truncate(200 * 2**20))\n"
        "go(lambda: os.symlink('/etc/passwd', 'link'))\n"
        "go(lambda: os.symlink('/proc/1/environ', 'environ'))\n"
        "go(lambda: os.mkfifo('pipe'))\n"
        "go(lambda: os.symlink('/etc', 'folder'))\n"
        "go(lambda: open('good', 'wb').write(b'good'))\n"
    )
    keep = ("sparse", "large", "link", "environ", "pipe", "folder/passwd", "good", "absent")
    result = await sandbox.run(ExecRequest(code, keep=keep))
    assert dict(result.files) == {"good": b"good"} or (
        {"good", "sparse"} == set(result.files) and not result.files["sparse"]
    )
    named = {line.partition(":")[0] for line in result.refused}
    assert named >= {"large", "link", "environ", "pipe", "folder/passwd", "absent"}
    await nothing_is_left(sandbox, docker_daemon)


async def test_attack_16_nothing_of_the_output_is_in_a_log_of_the_host(
    sandbox: DockerSandbox, docker_daemon: Daemon
) -> None:
    await run_attack(sandbox, CONTAINER_ATTACKS["16_a_gigabyte_of_output"])
    for each in ours(docker_daemon, sandbox):
        about = docker_daemon.client.inspect_container(each["Id"])
        assert (about["HostConfig"]["LogConfig"]["Type"], about["LogPath"]) == ("none", "")


async def test_attack_19_what_a_killed_script_printed_comes_back(sandbox: DockerSandbox, docker_daemon: Daemon) -> None:
    late = await sandbox.run(ExecRequest("print('partial')\nwhile True: pass", seconds=3))
    assert (late.status, late.stdout) == ("timeout", "partial\n")
    dead = await sandbox.run(ExecRequest("import os\nprint('partial')\nos.kill(os.getpid(), 9)"))
    assert (dead.status, dead.stdout) == ("killed", "partial\n")
    await nothing_is_left(sandbox, docker_daemon)


async def test_attack_23_nobody_can_signal_pid_1_while_it_wakes_and_stops_a_session(
    sandbox: DockerSandbox, docker_daemon: Daemon
) -> None:
    killers = (
        "import os\n"
        "for number in (9, 11, 15, 19):\n"
        "    if os.fork() == 0:\n"
        "        while True:\n"
        "            try:\n"
        "                os.kill(1, number)\n"
        "            except PermissionError:\n"
        "                continue\n"
        "            open('/tmp/sent', 'a').close()\n"
    )
    session = await sandbox.session()
    try:
        assert (await session.run(ExecRequest(killers))).status == "ok"
        for _ in range(60):
            assert (await session.run(ExecRequest("import time; time.sleep(0.01)"))).status == "ok"
        seen = await session.run(ExecRequest("import os\nprint(os.path.exists('/tmp/sent'))"))
        assert seen.stdout == "False\n"
    finally:
        await session.aclose()
    await nothing_is_left(sandbox, docker_daemon)


async def test_attack_26_each_end_has_a_status_and_a_text_of_its_own(
    sandbox: DockerSandbox, docker_daemon: Daemon
) -> None:
    codes = (
        "import os\nos._exit(3)",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.abort()",
        "raise SystemExit(4)",
        "1/0",
        "while True: pass",
        "x = bytearray(10**11)",
    )
    ends = [
        await sandbox.run(ExecRequest(code, seconds=1 if "while" in code else 15, memory=64 * MB)) for code in codes
    ]
    assert [end.status for end in ends] == ["error", "killed", "killed", "error", "error", "timeout", "oom"]
    assert len({end.error for end in ends}) == len(codes)
    assert all(end.error for end in ends)
    await nothing_is_left(sandbox, docker_daemon)


async def test_attack_27_nothing_of_one_is_visible_to_the_next(sandbox: DockerSandbox, docker_daemon: Daemon) -> None:
    assert (await sandbox.run(ExecRequest(LEAVES))).status in ("ok", "error")
    assert (await sandbox.run(ExecRequest(FINDS))).stdout == "done: ['new file']\n"
    session = await sandbox.session()
    await session.run(ExecRequest(LEAVES))
    await session.aclose()
    assert (await sandbox.run(ExecRequest(FINDS))).stdout == "done: ['new file']\n"
    await nothing_is_left(sandbox, docker_daemon)


async def test_attack_36_a_container_that_is_removed_is_an_error_and_nothing_runs_again(
    sandbox: DockerSandbox, docker_daemon: Daemon
) -> None:
    await check_alive(sandbox)
    ends: list[BaseException | ExecResult] = []

    async def job() -> None:
        try:
            ends.append(await sandbox.run(ExecRequest("while True: pass", seconds=30)))
        except SandboxFault as error:
            ends.append(error)

    with anyio.fail_after(25):  # before the script's own end
        async with anyio.create_task_group() as group:
            group.start_soon(job)
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(remove_all, docker_daemon, sandbox)
    assert [type(end) for end in ends] == [ChannelBroken]
    await nothing_is_left(sandbox, docker_daemon)
    # Removed while they are idle, they are not even asked.
    await anyio.to_thread.run_sync(remove_all, docker_daemon, sandbox)
    await nothing_is_left(sandbox, docker_daemon)


LIES = {
    "oversized": "out(struct.pack('>I', 2**31))",
    "malformed": "out(struct.pack('>I', 5) + b'{{{{{')",
    "wrong nonce": 'body = b\'{"nonce": "0", "status": "ok", "stdout": "forged"}\'\n'
    "    out(struct.pack('>I', len(body)) + body)",
    "no frame": "out(b'Traceback')\n    sys.exit(1)",
    "a reply too many": "reply(message, 'ok')\n    reply(message, 'ok')",
}
LIAR = """
import json, os, struct, sys
def out(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
def reply(message, status):
    body = json.dumps({"nonce": message["nonce"], "status": status, "version": "%(version)s", "clean": True}).encode()
    out(struct.pack(">I", len(body)) + body)
def take():
    head = sys.stdin.buffer.read(4)
    return json.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0])) if head else sys.exit()
reply(take(), "ready")
while True:
    message = take()
    %(lie)s
"""


@pytest.mark.parametrize("lie", LIES)
async def test_attack_38_a_reply_that_is_none_retires_the_container(
    lie: str, sandbox: DockerSandbox, docker_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = LIAR % {"version": version(), "lie": LIES[lie]}

    def lying(limits: Limits) -> dict[str, Any]:
        return config(limits) | {"Entrypoint": ["/usr/bin/python3", "-c", liar]}

    monkeypatch.setattr(container, "config", lying)
    limits = sandbox.limits
    second = DockerSandbox(runtime=limits.runtime, containers=1, run=f"lies-{limits.runtime}")
    try:
        broken = 0
        for _ in range(2):
            try:
                assert (await second.run(ExecRequest("print(2)"))).stdout == ""
            except ChannelBroken:
                broken += 1
        # One reply too many is seen when the container is leased again, before anything is asked, or with the answer.
        assert broken == 2 or lie == "a reply too many"
    finally:
        await second.aclose()
    assert ours(docker_daemon, second) == []


async def test_attack_39_the_selftest_sees_limits_that_are_not_there(
    docker_daemon: Daemon, sandbox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(limits: Limits) -> dict[str, Any]:
        flags = config(limits)
        flags["HostConfig"] |= {"PidsLimit": 0, "Memory": 0, "MemorySwap": 0, "Tmpfs": {}, "ReadonlyRootfs": False}
        flags["HostConfig"] |= {"NetworkMode": "host", "Tmpfs": {"/scratch": "mode=1777", "/tmp": "mode=1777"}}
        return flags | {"NetworkDisabled": False}

    monkeypatch.setattr(container, "config", careless)
    monkeypatch.setattr(selftest, "_save", lambda done: None)
    limits = replace(Limits(image_tag()), run="careless")
    found = {each.name: each for each in (await selftest.selftest(docker_daemon, limits, fresh=True)).checks}
    assert not found["memory"].held
    assert not found["tmpfs"].held
    assert not found["egress"].held
    assert found["pid1"].held


async def test_attack_39_gvisor_that_ignores_limits_says_so(sandbox: DockerSandbox) -> None:
    test = await sandbox.selftest()
    found = {each.name: each for each in test.checks}
    assert set(found) == {"pids", "memory", "tmpfs", "egress", "seccomp", "pid1"}
    assert all(found[name].held for name in ("egress", "seccomp", "pid1"))
    if sandbox.limits.runtime is None:
        assert test.held
