"""What is inside a container of the sandbox, asked over the wire, under runc and under gVisor."""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from researcher_sandbox import image
from researcher_sandbox.docker import container
from researcher_sandbox.docker.client import Daemon
from researcher_sandbox.docker.container import Container, Limits
from researcher_sandbox.docker.wire import ChannelBroken, Reply

from researcher.errors import UserError

pytestmark = pytest.mark.e2e

MB = 2**20
SECONDS = 60.0
"""For a script that ends by itself, on a machine that has other work."""


class Inside:
    """One container, asked without the pool."""

    def __init__(self, daemon: Daemon, limits: Limits) -> None:
        self.daemon, self.limits = daemon, limits
        self.at: Container = container.start(daemon.client, limits, image.version())

    def ask(self, **message: Any) -> Reply:
        return self.at.channel.ask_now(message, 2 * SECONDS)

    def run(self, code: str, language: str = "python", **options: Any) -> Reply:
        limits: dict[str, Any] = {"seconds": SECONDS, "memory": 128 * MB, "output": 16_384}
        return self.ask(op="run", code=code, language=language, **(limits | options))

    def cell(self, code: str, **options: Any) -> Reply:
        return self.run(code, session=True, **options)

    def end(self) -> Reply:
        return self.ask(op="end")

    def close(self) -> None:
        self.at.channel.close()
        container.remove(self.daemon.client, self.at.id)


@pytest.fixture(scope="module", params=["runc", "runsc"])
def inside(request: pytest.FixtureRequest, docker_daemon: Daemon, sandbox_image: str) -> Iterator[Inside]:
    runtime = request.getfixturevalue("gvisor_runtime") if request.param == "runsc" else None
    inside = Inside(docker_daemon, Limits(sandbox_image, runtime, run="image-tests"))
    yield inside
    inside.close()


@pytest.fixture
def alone(docker_daemon: Daemon, sandbox_image: str) -> Iterator[Inside]:
    """A container for a test after which it is of no more use."""
    inside = Inside(docker_daemon, Limits(sandbox_image, run="image-tests"))
    yield inside
    inside.close()


@pytest.fixture(autouse=True)
def works_after(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that shares a container, it is as new."""
    yield
    if "inside" in request.fixturenames:
        found = request.getfixturevalue("inside").run("print(2)")
        assert (found.status, found.stdout, found.clean) == ("ok", "2\n", True)


# The image


def test_image_is_named_by_its_content(docker_daemon: Daemon, sandbox_image: str) -> None:
    about = docker_daemon.client.inspect_image(sandbox_image)
    assert sandbox_image == f"researcher-sandbox:{image.version()}"
    assert about["Config"]["Labels"][image.LABEL] == image.version()
    assert about["Size"] < 700 * MB


def test_second_build_finds_the_first(docker_daemon: Daemon, sandbox_image: str) -> None:
    """The same image, layer for layer, without anything installed again."""
    how: image.How = "debian" if docker_daemon.client.images(name=image._base_tag()) else "auto"
    image.build(docker_daemon.client, how=how)
    before = docker_daemon.client.inspect_image(sandbox_image)["RootFS"]
    said: list[str] = []
    assert image.build(docker_daemon.client, how=how, progress=said.append) == sandbox_image
    assert docker_daemon.client.inspect_image(sandbox_image)["RootFS"] == before
    assert not any("mmdebstrap" in line for line in said)


def test_missing_and_other_versions_name_the_command(
    docker_daemon: Daemon, sandbox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "version", lambda: "000000000000")
    with pytest.raises(UserError, match="of another version than 000000000000; run researcher sandbox build"):
        image.check(docker_daemon.client)
    monkeypatch.setattr(image, "REPOSITORY", "researcher-sandbox-none")
    with pytest.raises(UserError, match="is not there; run researcher sandbox build"):
        image.check(docker_daemon.client)


def test_wheel_brings_the_image_folder(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[2]
    (name,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(name) as wheel:
        prefix = "researcher_sandbox/_image/"
        inside = {each.removeprefix(prefix) for each in wheel.namelist() if each.startswith(prefix)}
        assert inside >= {each for each, _ in image._files()}
        assert wheel.read(f"{prefix}supervisor.py") == (image.folder() / "supervisor.py").read_bytes()


def test_hello_says_what_is_there(inside: Inside) -> None:
    hello = inside.at.hello
    assert (hello.version, hello.languages) == (image.version(), ["python", "bash", "c"])
    assert hello.modules == ["numpy", "sympy"]


def test_nothing_in_the_image_gives_another_user_or_is_writable(inside: Inside) -> None:
    code = """
import os, stat
found = []
for top, folders, names in os.walk("/"):
    folders[:] = [f for f in folders if top != "/" or f not in ("proc", "sys", "dev", "scratch", "tmp")]
    for name in (*names, *folders):
        mode = os.lstat(os.path.join(top, name)).st_mode
        bad = stat.S_IWOTH | (stat.S_ISUID | stat.S_ISGID if stat.S_ISREG(mode) else 0)
        if not stat.S_ISLNK(mode) and mode & bad:
            found.append(os.path.join(top, name))
print(found)
"""
    assert inside.run(code).stdout == "[]\n"


# Scripts


def test_numpy_threads_and_processes_work(inside: Inside) -> None:
    code = """
import subprocess, multiprocessing, concurrent.futures, numpy, sympy, tempfile
def square(x): return x * x
with multiprocessing.Pool(2) as pool: print(pool.map(square, range(4)))
with concurrent.futures.ThreadPoolExecutor(8) as pool: print(sum(pool.map(square, range(100))))
print(subprocess.run("echo hi | cat", shell=True, capture_output=True, text=True).stdout.strip())
print(round(numpy.linalg.inv(numpy.eye(50)).sum()), sympy.sympify("x**3/3"), tempfile.mkdtemp()[:5])
"""
    assert inside.run(code).stdout == "[0, 1, 4, 9]\n328350\nhi\n50 x**3/3 /tmp/\n"


def test_modules_are_ready_where_they_are_named_and_there_where_they_are_not(inside: Inside) -> None:
    ready = "import sys; print('num' + 'py' in sys.modules, 'sym' + 'py' in sys.modules"
    assert any(inside.run(f"{ready})").stdout == "False False\n" for _ in range(500))  # once it is ready itself
    assert inside.run(f"{ready})  # numpy").stdout == "True True\n"
    assert inside.run("n = __import__('num' + 'py'); print(n.ones(3).sum())").stdout == "3.0\n"
    helper = base64.b64encode(b"import numpy\n").decode()
    found = inside.run(f"{ready}); import helper", files={"helper.py": helper})
    assert (found.status, found.stdout) == ("ok", "True True\n")


def test_children_do_not_share_their_randomness(inside: Inside) -> None:
    code = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (inside.run(code).stdout.split() for _ in range(2))
    assert not set(first) & set(second)


def test_bash_and_its_exit_status(inside: Inside) -> None:
    found = inside.run("for i in 1 2; do echo $i; done\ncat <(echo sub)\nno_such_command\nexit 4", "bash")
    assert (found.status, found.error) == ("error", "exit status 4")
    assert found.stdout.startswith("1\n2\nsub\n")
    assert "no_such_command: command not found" in found.stdout


def test_c_runs_or_says_what_gcc_said(inside: Inside) -> None:
    fine = inside.run('#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) '
                      '{ printf("%.3f\\n", sqrt(2.0 * c)); return 0; }', "c")  # fmt: skip
    assert (fine.status, fine.stdout) == ("ok", "1.414\n")
    wrong = inside.run("int main() { int x = ; }", "c")
    assert (wrong.status, wrong.stdout) == ("error", "")
    assert "main.c:1:22: error: expected expression" in wrong.error
    crash = inside.run("int main() { *(volatile int *)0 = 1; }", "c")
    assert (crash.status, "SIGSEGV" in crash.error) == ("killed", True)


def test_ends_are_told_apart(inside: Inside) -> None:
    cases = {
        "import os; os._exit(3)": ("error", "exit status 3"),
        "import os; os.kill(os.getpid(), 9)": ("killed", "SIGKILL"),
        "import os; os.abort()": ("killed", "SIGABRT"),
        "import ctypes; ctypes.string_at(0)": ("killed", "SIGSEGV"),
        "import os; os.execv('/bin/false', ['false'])": ("error", "exit status 1"),
        "x = []\nwhile True: x.append(bytearray(10**7))": ("oom", "more than 128 MB"),
        "1 / 0": ("error", "ZeroDivisionError: division by zero (line 1)"),
        "import pandas": ("error", "installed are numpy, sympy"),
        "x =": ("error", "SyntaxError: invalid syntax (line 1: x =)"),
        "import os; os.closerange(0, 256); 1 / 0": ("error", "exit status 1"),
    }
    for code, (status, words) in cases.items():
        found = inside.run(code)
        assert (found.status, words in found.error) == (status, True), (code, found)


def test_memory_of_all_processes_together(inside: Inside) -> None:
    """Each one is far below the limit, and what is mapped as shared is no process's data."""
    many = """
import os, time
for i in range(12):
    if os.fork() == 0:
        block = bytearray(60 * 2**20)
        time.sleep(60)
time.sleep(60)
"""
    shared = "import mmap\nx = []\nwhile True:\n    x.append(mmap.mmap(-1, 10**7)); x[-1].write(b'1' * 10**7)"
    for code in (many, shared):
        found = inside.run(code)
        assert found.status == "oom" or "Cannot allocate memory" in found.error, (code, found)


def test_output_of_a_killed_script_and_of_its_daemon(inside: Inside) -> None:
    late = inside.run("print('said'); import time\nwhile True: time.sleep(1)", seconds=1.0)
    assert (late.status, late.stdout) == ("timeout", "said\n")
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nprint('bye')"
    found = inside.run(daemon)
    assert (found.status, found.stdout) == ("ok", "bye\n")
    assert found.seconds < SECONDS / 2


def test_streams_of_bytes_are_text_within_the_cap(inside: Inside) -> None:
    odd = inside.run("import os; os.write(1, b'\\xff\\0\\x1b[31m\\xed\\xa0\\x80'); print('\\ud800')")
    assert odd.stdout == "\\xff\0\x1b[31m\\xed\\xa0\\x80\\ud800\n"
    long = inside.run("for i in range(10_000): print(i)", output=1000)
    assert (long.status, long.truncated, long.total) == ("ok", True, 48_890)
    assert long.stdout.startswith("0\n1\n")
    assert long.stdout.endswith("9998\n9999\n")
    flood = inside.run("import os\nwhile True: os.write(2, b'x' * 2**16)", output=1000)
    assert (flood.status, flood.truncated) == ("output_limit", True)


# Files


def test_files_in_and_kept_files_out(inside: Inside) -> None:
    code = """
import os
open("out.txt", "w").write(open("in/a.txt").read().upper())
os.symlink("/etc/passwd", "link"); os.mkfifo("pipe"); os.mkdir("d"); os.symlink("d", "e")
open("d/f", "w").write("x")
with open("sparse", "wb") as file: file.truncate(10**8)
os.link("out.txt", "again")
"""
    keep = ["out.txt", "again", "d/f", "link", "pipe", "sparse", "e/f", "none", "/etc/passwd", "../etc/passwd"]
    found = inside.run(code, files={"in/a.txt": base64.b64encode(b"hello").decode()}, keep=keep)
    assert found.status == "ok", found.error
    assert {name: base64.b64decode(data) for name, data in found.files.items()} == {
        "out.txt": b"HELLO", "again": b"HELLO", "d/f": b"x",
    }  # fmt: skip
    assert [line.split(": ")[0] for line in found.refused] == keep[3:]


def test_files_that_do_not_fit(inside: Inside) -> None:
    limit = inside.limits.scratch
    found = inside.run("print(1)", files={f"{i}": base64.b64encode(bytes(15 * MB)).decode() for i in range(2)})
    assert found.status == "ok"
    assert limit < 80 * MB, "the next line is meant to fill it"
    full = inside.run(f"open('big', 'wb').write(bytes({limit + MB}))")
    assert (full.status, "No space left" in full.error) == ("error", True)


def test_nothing_of_a_job_is_there_for_the_next(inside: Inside) -> None:
    dirt = """
import os
for top in ("/scratch", "/tmp", "/dev/shm"):
    os.makedirs(top + "/a/b/c"); open(top + "/a/b/f", "w").close(); os.symlink("/", top + "/l")
    os.chmod(top + "/a/b/c", 0); os.chmod(top + "/a/b", 0); os.chmod(top + "/a", 0)
"""
    assert inside.run(dirt).clean
    look = "import os; print([os.listdir(top) for top in ('/scratch', '/tmp', '/dev/shm')], os.getcwd())"
    assert inside.run(look).stdout == "[[], [], []] /scratch\n"


# Sessions


def test_session_keeps_its_state(inside: Inside) -> None:
    assert inside.cell("x = 1\nimport numpy as np").status == "ok"
    found = inside.cell("x += 1; print(x, np.arange(3).sum())")
    assert (found.stdout, found.lost) == ("2 3\n", False)
    assert inside.cell("1 / 0").error == "ZeroDivisionError: division by zero (line 1)"
    assert inside.cell("raise SystemExit(3)").status == "error"
    kept = inside.cell("open('f', 'w').write(str(x))", keep=["f"])
    assert base64.b64decode(kept.files["f"]) == b"2"
    assert inside.cell("print(open('f').read(), x)").stdout == "2 2\n"
    assert (inside.end().status, inside.run("print('x' in globals())").stdout) == ("ended", "False\n")


def test_session_rests_between_cells(inside: Inside) -> None:
    """A thread of a cell runs while a cell runs, and not while the model thinks."""
    tick = """
import threading, time
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.001)
threading.Thread(target=tick, daemon=True).start()
"""
    inside.cell(tick)
    inside.cell("before = time.monotonic()")
    for _ in range(300):  # time passes: the container answers other requests
        inside.ask(op="hello")
    inside.cell("after = time.monotonic()")
    gaps = "print(max(b - a for a, b in zip(ticks, ticks[1:])) > (after - before) / 2, ticks[-1] > after)"
    assert inside.cell(f"while ticks[-1] < after: time.sleep(0.01)\n{gaps}").stdout == "True True\n"
    inside.end()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", "timeout"),
        ("import os; os._exit(0)", "killed"),
        ("import ctypes; ctypes.string_at(0)", "killed"),
        ("import os\nwhile True: os.write(1, b'x' * 2**16)", "output_limit"),
    ],
)
def test_session_that_is_lost_says_so(inside: Inside, code: str, status: str) -> None:
    assert inside.cell("x = 1").status == "ok"
    found = inside.cell(code, seconds=2.0 if status == "timeout" else SECONDS)
    assert (found.status, found.lost) == (status, True)
    assert inside.cell("print(x)").status == "lost"
    assert (inside.end().status, inside.cell("print('x' in globals())").stdout) == ("ended", "False\n")
    inside.end()


def test_a_forged_record_ends_the_cell_alone(inside: Inside) -> None:
    """What a cell writes on its private pipe is its own word about itself: short, escaped, and no reply's field."""
    forged = "import os\nos.write(3, b'O' + b'\\0\\0'); os.write(3, b'E' + b'\\xff\\xff' + b'x' * 70000)"
    assert inside.cell(forged).status in ("ok", "error")
    assert inside.end().clean


# The wire


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 2**31),
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 3) + b"{{{",
        b"".join((struct.pack(">I", 30), json.dumps({"op": "no", "nonce": "1"}).encode().ljust(30))),
        b"".join((struct.pack(">I", 40), json.dumps({"op": "run", "code": 1, "nonce": "1"}).encode().ljust(40))),
    ],
)
def test_what_is_no_request_ends_the_container(alone: Inside, data: bytes) -> None:
    alone.at.channel._sock.setblocking(True)
    alone.at.channel._sock.sendall(data)
    with pytest.raises(ChannelBroken, match="supervisor: a "):
        alone.ask(op="hello")


def test_end_of_stdin_ends_a_job_too(alone: Inside) -> None:
    client = alone.daemon.client
    nonce = {"op": "run", "nonce": "1", "code": "while True: pass", "seconds": 600, "memory": MB, "output": 9}
    body = json.dumps(nonce).encode()
    alone.at.channel._sock.setblocking(True)
    alone.at.channel._sock.sendall(struct.pack(">I", len(body)) + body)
    alone.at.channel.close()
    code = client.wait(alone.at.id, timeout=60, condition="removed")["StatusCode"]
    assert code == 0


def test_root_in_the_container_holds_three_capabilities(inside: Inside) -> None:
    """PID 1 as a job sees it, and the job itself."""
    code = """
def read(pid):
    return dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
mine = read("self")
print(int(read(1)["CapEff"], 16), int(mine["CapEff"], 16), int(mine["CapPrm"], 16), mine["Seccomp"].strip())
"""
    three = 1 << 5 | 1 << 6 | 1 << 7  # KILL, SETGID, SETUID
    assert inside.run(code).stdout == f"{three} 0 0 2\n"
