"""The Docker sandbox against a real daemon: what every sandbox must do, its pool, its sweep, its errors."""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
from researcher_sandbox.docker import DockerSandbox, client, container, owner, selftest
from researcher_sandbox.docker.client import Daemon
from researcher_sandbox.docker.container import Limits, config
from researcher_sandbox.docker.sweep import sweep
from researcher_sandbox.registry import open_sandbox

from researcher.cli.main import main
from researcher.errors import SandboxFault, UserError
from researcher.protocols import ExecRequest
from researcher.testing.sandbox_conformance import (
    check_basics,
    check_cancel,
    check_files,
    check_language,
    check_output,
    check_session,
)

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

LANGUAGES = {
    "bash": ("echo $((6 * 7)); echo err >&2", "42\nerr\n"),
    "c": ('#include <stdio.h>\nint main(void) { printf("%d\\n", 6 * 7); return 0; }', "42\n"),
}


@pytest.fixture(scope="module", params=["docker", "gvisor"])
async def sandbox(request: pytest.FixtureRequest, anyio_backend: str, sandbox_image: str) -> AsyncIterator[Any]:
    if request.param == "gvisor":
        request.getfixturevalue("gvisor_runtime")
    async with open_sandbox(request.param, options={"containers": 4}) as sandbox:
        await sandbox.run(ExecRequest("print(2)"))
        yield sandbox


def ours(daemon: Daemon, run: str, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.client.containers(filters={"label": f"{owner.RUN}={run}"}, **options)
    return found


@pytest.mark.parametrize("check", [check_basics, check_output, check_session, check_files, check_cancel])
async def test_conformance(check: Any, sandbox: DockerSandbox) -> None:
    await check(sandbox)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_languages(language: str, sandbox: DockerSandbox) -> None:
    await check_language(sandbox, language, *LANGUAGES[language])


async def test_numpy_is_there_before_the_script_is(sandbox: DockerSandbox) -> None:
    code = (
        "import sys\nprint('numpy' in sys.modules, 'sympy' in sys.modules)\nimport numpy\nprint(numpy.arange(3).sum())"
    )
    assert (await sandbox.run(ExecRequest(code))).stdout == "True True\n3\n"


async def test_many_scripts_share_a_few_containers_and_see_nothing_of_each_other(
    sandbox: DockerSandbox, docker_daemon: Daemon
) -> None:
    printed: list[str] = []
    code = "import os\nassert not os.listdir('.')\nopen('mine', 'w').write('{0}')\nprint(open('mine').read())"

    async def one(i: int) -> None:
        printed.append((await sandbox.run(ExecRequest(code.format(i), seconds=30))).stdout.strip())

    async with anyio.create_task_group() as group:
        for i in range(40):
            group.start_soon(one, i)
    assert sorted(map(int, printed)) == list(range(40))
    assert len(ours(docker_daemon, sandbox.limits.run)) <= 4


async def test_a_cancelled_script_is_ended_and_its_container_with_it(docker_daemon: Daemon, sandbox_image: str) -> None:
    sandbox = DockerSandbox(containers=1)
    try:
        await sandbox.run(ExecRequest("print(2)"))
        (before,) = ours(docker_daemon, sandbox.limits.run)
        with anyio.move_on_after(0.3):
            await sandbox.run(ExecRequest("import time\ntime.sleep(60)", seconds=60))
        await sandbox.run(ExecRequest("print(2)"))
        (after,) = ours(docker_daemon, sandbox.limits.run, all=True)
        assert after["Id"] != before["Id"]
    finally:
        await sandbox.aclose()
    assert ours(docker_daemon, sandbox.limits.run, all=True) == []


async def test_a_supervisor_that_hangs_is_killed_by_the_hosts_watchdog(
    docker_daemon: Daemon, sandbox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("researcher_sandbox.docker.execution.GRACE", 0.5)
    sandbox = DockerSandbox(containers=1)
    try:
        await sandbox.run(ExecRequest("print(2)"))
        (mine,) = ours(docker_daemon, sandbox.limits.run)
        docker_daemon.client.pause(mine["Id"])
        result = await sandbox.run(ExecRequest("print(2)", seconds=0.5))
        assert (result.status, result.stdout) == ("timeout", "")
        with anyio.fail_after(60):
            while any(each["Id"] == mine["Id"] for each in ours(docker_daemon, sandbox.limits.run, all=True)):  # noqa: ASYNC110
                await anyio.sleep(0.05)
    finally:
        await sandbox.aclose()


async def test_a_closed_sandbox_runs_nothing(sandbox_image: str) -> None:
    sandbox = DockerSandbox(containers=1)
    session = await sandbox.session()
    await sandbox.aclose()
    for each in (sandbox, session):
        with pytest.raises(SandboxFault):
            await each.run(ExecRequest("print(2)"))


CREATE = """
import sys, time
from researcher_sandbox.docker import container
from researcher_sandbox.docker.client import connect
from researcher_sandbox.image import image_tag
print(container._create(connect().client, container.Limits(image_tag(), run=sys.argv[1])), flush=True)
time.sleep(600)
"""


def test_the_sweep_takes_what_a_killed_process_left_and_nothing_else(docker_daemon: Daemon, sandbox_image: str) -> None:
    run = secrets.token_hex(8)
    with subprocess.Popen([sys.executable, "-c", CREATE, run], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            left = other.stdout.readline().strip()
            assert left not in sweep(docker_daemon.client)
            assert [each["Id"] for each in ours(docker_daemon, run, all=True)] == [left]
        finally:
            other.kill()
    assert left in sweep(docker_daemon.client)
    assert ours(docker_daemon, run, all=True) == []


async def refused(**options: Any) -> str:
    """What opening a sandbox with these options says."""
    with pytest.raises(UserError) as caught:
        async with open_sandbox("docker", options=options):
            pass
    return str(caught.value)


async def test_what_is_missing_is_said_with_what_to_do(
    docker_daemon: Daemon, sandbox_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "has no runtime no-such; install gVisor" in await refused(runtime="no-such")
    assert "no-such:1 is not there; run researcher sandbox build" in await refused(image="no-such:1")
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        assert "No Docker daemon answers at" in await refused()
    with monkeypatch.context() as patch:
        patch.setattr(client.importlib.util, "find_spec", lambda name: None)
        assert "pip install 'researcher-orchestrator[docker]', or use --sandbox monty" in await refused()
    with monkeypatch.context() as patch:
        silent = {"Entrypoint": ["/usr/bin/python3", "-c", "import sys; sys.exit('no such module')"]}
        patch.setattr(container, "config", lambda limits: config(limits) | silent)
        patch.setattr(selftest, "_load", lambda about: None)
        with pytest.raises(SandboxFault, match="no such module"):
            async with open_sandbox("docker", options={"containers": 1}):
                pass


async def test_an_image_of_another_version_is_refused(
    docker_daemon: Daemon, sandbox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"is of version \w+, not 0; run researcher sandbox build"):
        await anyio.to_thread.run_sync(container.start, docker_daemon.client, Limits(sandbox_image), "0")


async def test_the_selftest_is_kept_and_decides(
    sandbox_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sandbox = DockerSandbox(containers=1)
    fresh = await sandbox.selftest()
    assert fresh.held, fresh
    assert {each["name"] for each in fresh.record()["checks"]} == set(selftest.CHECKS)
    with monkeypatch.context() as patch:
        patch.setattr(selftest, "start", None)  # a second one starts nothing
        assert await sandbox.selftest() == fresh
    await sandbox.aclose()

    def fail(name: str) -> None:
        checks = (*fresh.checks, selftest.Check(name, False, "tried"))
        selftest._save(msgspec.structs.replace(fresh, checks=checks))

    fail("egress")
    assert "does not hold against egress under the default runtime (tried)" in await refused()
    with caplog.at_level(logging.WARNING):
        async with open_sandbox("docker", options={"allow_unheld": ["egress"]}):
            assert caplog.records == []
        fail("memory")
        async with open_sandbox("docker"):
            assert "does not limit memory" in caplog.text
    assert "allow_unheld knows no 'x'" in await refused(allow_unheld=["x"])


def test_the_command_line_tests_and_lists(sandbox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "selftest", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert all(check["held"] for check in record["checks"])
    assert main(["sandbox", "ls"]) == 0
    assert main(["sandbox", "selftest", "--runtime", "no-such"]) == 2
    assert "has no runtime no-such" in capsys.readouterr().err
