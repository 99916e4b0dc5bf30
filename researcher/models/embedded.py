"""A model in this process: llama.cpp behind its own loopback server, which only this process can talk to.

The server has a random port and a random key, because llama.cpp's default has neither a key nor limits on origins.
All users of one file share one server; the last one to leave stops it.

What was measured on two cores with a model of 2.5 million parameters, and decided by it (design/servers.md):
a small model runs on one thread (two threads spin in barriers, and are six times slower as soon as anything else
wants a core); each slot has its own cache (a unified one makes every token attend over all slots, masked).
"""

from __future__ import annotations

import atexit
import importlib
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio

from researcher.errors import UserError
from researcher.models.endpoint import Endpoint
from researcher.models.limiter import AdaptiveLimiter
from researcher.models.pool import Pool

SHIPPED = Path(__file__).parent / "weights" / "reasoner.gguf"
SMALL = 64 * 2**20  # bytes of a file up to which a model is small: one thread, many slots
CONTEXT = 4096  # tokens of each slot
PROMPT_CACHE_MIB = 512  # memory for the prefixes of slots that were given to others; llama.cpp's default is 8 GiB
HTTP_THREADS = 64  # a connection that is kept alive holds one, so there are more of them than slots
COPIES = 8  # of a small model at most: each takes 0.3 s to start and 200 MiB, and is started anew for new weights
LINGER = 0.5  # seconds that calls cut off by their callers have to end by themselves when a server stops


class ServerPlan(NamedTuple):
    """How a file is served: calls at once, tokens for each of them, threads that compute."""

    slots: int
    context: int
    threads: int


@asynccontextmanager
async def open_embedded(
    path: Path | None = None,
    *,
    slots: int | None = None,
    context: int = CONTEXT,
    threads: int | None = None,
    copy: int = 0,
    plain: bool = False,
) -> AsyncIterator[Endpoint]:
    """An Endpoint on the model in `path`, or on the one this package ships. Raises UserError.

    `slots` are the calls that run at once, each with room for `context` tokens; more wait in the endpoint's limiter.
    The first user of a file decides both. Another `copy` of a file has a server of its own. llama.cpp notices that a
    caller has gone only while it streams to it: a call that may be cut off should stream. `plain` is the Endpoint's.
    """
    file = _checked(SHIPPED if path is None else path)
    plan = _plan(file, slots, context, threads)
    taken: list[_Server] = []  # filled in the thread, so that a cancellation in between loses nothing
    try:
        await anyio.to_thread.run_sync(lambda: taken.append(_SHELF.take(file, plan, copy)))
        server = taken[0]
        limiter = AdaptiveLimiter(server.plan.slots, maximum=server.plan.slots)
        endpoint = Endpoint(server.base_url, server.name, api_key=server.key, limiter=limiter, plain=plain)
        try:
            yield endpoint
        finally:
            with anyio.CancelScope(shield=True):
                await endpoint.aclose()
    finally:
        if taken:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_SHELF.give_back, taken[0])


@asynccontextmanager
async def open_on_all_cores(path: Path) -> AsyncIterator[Endpoint | Pool]:
    """The model of a file, computed on all cores: of a small one, which computes on one, a copy for each of them, up to
    as many as pay for their start. A small one streams only what is to stream (design/servers.md)."""
    small = _plan(_checked(path), None, CONTEXT, None).threads == 1
    count = min(physical_cores(), COPIES) if small else 1
    async with AsyncExitStack() as stack:
        copies = [await stack.enter_async_context(open_embedded(path, copy=i, plain=small)) for i in range(count)]
        yield Pool(copies) if count > 1 else copies[0]


def physical_cores() -> int:
    """Cores this process may use, hardware threads of one core counted once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(1, len(siblings))


def _siblings(cpu: int) -> str:
    listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return listed.read_text().strip() if listed.is_file() else str(cpu)


def _checked(path: Path) -> Path:
    """The file's full path, if it can be a GGUF."""
    if path == SHIPPED and not path.exists():
        raise UserError(f"this installation has no embedded model ({path}); reinstall the package or name gguf:PATH")
    if not path.exists():
        raise UserError(f"there is no model file {path}; check the path after gguf:")
    if not path.is_file():
        raise UserError(f"{path} is not a file; gguf: wants the .gguf file itself")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    if magic != b"GGUF":
        raise UserError(f"{path} is not a GGUF file; convert the model to GGUF, or serve it with vllm:NAME")
    return path.resolve()


def _plan(file: Path, slots: int | None, context: int, threads: int | None) -> ServerPlan:
    small = file.stat().st_size <= SMALL
    return ServerPlan(
        slots=slots or (16 if small else 4), context=context, threads=threads or (1 if small else physical_cores())
    )


@dataclass(slots=True, eq=False)
class _Server:
    """A running llama.cpp server and how many use it."""

    file: Path
    copy: int
    plan: ServerPlan
    key: str
    native: Any
    users: int = 0

    @property
    def base_url(self) -> str:
        return f"{self.native.listening_address}/v1"

    @property
    def name(self) -> str:
        return self.file.stem

    def busy(self) -> bool:
        """Calls are under way; asked in the process, not over HTTP."""
        for line in self.native.handle_metrics().splitlines():
            name, _, value = line.partition(" ")
            if name in ("llamacpp:requests_processing", "llamacpp:requests_deferred") and float(value) > 0:
                return True
        return False

    def stop(self) -> None:
        """End the server. Blocks for a second where calls are still computed that nobody waits for."""
        _hang_up(urlsplit(self.base_url).port)
        until = time.monotonic() + LINGER
        while self.busy() and time.monotonic() < until:
            time.sleep(0.02)
        self.native = None


def _hang_up(port: int | None) -> None:
    """Shut this process's own connections to the port: the server's destructor waits for them, and nobody else has any.

    They are closed already, unless the program ends without leaving its contexts.
    """
    for name in os.listdir("/dev/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue  # a socket made of it would fail, and leave its copy of the descriptor open
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.getpeername()[:2] == ("127.0.0.1", port):
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # not connected, or gone


class _Shelf:
    """The servers of this process, one for each copy of a file. Invariant of the lock: one on the shelf has users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[tuple[Path, int], _Server] = {}
        self._watching_exit = False

    def take(self, file: Path, plan: ServerPlan, copy: int) -> _Server:
        """The copy's server, started if need be, with one more user. Blocks while it loads."""
        with self._lock:
            server = self._servers.get((file, copy))
            if server is None:
                server = self._servers[file, copy] = _start(file, plan, copy)
                if not self._watching_exit:
                    atexit.register(self._at_exit)
                    self._watching_exit = True
            server.users += 1
            return server

    def give_back(self, server: _Server) -> None:
        """One user less; the last one stops the server. Blocks until it has stopped."""
        with self._lock:
            server.users -= 1
            if server.users == 0:
                del self._servers[server.file, server.copy]
                server.stop()

    def _at_exit(self) -> None:
        """For a program that ends without leaving its contexts: the process cannot end with the server's threads."""
        for server in self._servers.values():
            server.stop()
        self._servers.clear()


_SHELF = _Shelf()


def _start(file: Path, plan: ServerPlan, copy: int) -> _Server:
    try:
        xllamacpp: Any = importlib.import_module("xllamacpp")
    except ModuleNotFoundError:
        raise UserError(
            "the embedded model needs llama.cpp, which is not installed; "
            "run: pip install 'researcher-orchestrator[local]'"
        ) from None
    except ImportError as error:
        raise UserError(
            f"llama.cpp is installed but cannot be loaded: {error}; it needs the system's OpenMP library "
            "(on Debian and Ubuntu: apt-get install libgomp1)"
        ) from None
    key = secrets.token_urlsafe(32)
    try:
        native = xllamacpp.Server(_params(xllamacpp, file, plan, key))
    except (RuntimeError, ValueError):
        raise UserError(
            f"llama.cpp could not load {file}; the file is damaged, or of an architecture that xllamacpp "
            f"{xllamacpp.__version__} does not know, or too large for this machine's memory"
        ) from None
    return _Server(file, copy, plan, key, native)


def _params(xllamacpp: Any, file: Path, plan: ServerPlan, key: str) -> Any:
    p = xllamacpp.CommonParams()
    p.model.path, p.model_alias = str(file), {file.stem}
    p.hostnames, p.port, p.api_keys = ["127.0.0.1"], 0, [key]
    p.cors_origins, p.cors_credentials = "http://127.0.0.1", False
    p.ui, p.endpoint_metrics, p.endpoint_slots, p.endpoint_props = False, True, True, False
    p.n_parallel, p.n_ctx, p.kv_unified, p.cont_batching = plan.slots, plan.slots * plan.context, False, True
    p.cache_prompt, p.cache_ram_mib = True, PROMPT_CACHE_MIB
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = plan.threads
    p.n_threads_http = max(HTTP_THREADS, 2 * plan.slots)
    p.use_jinja = True
    p.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
    # The logprobs it reports are of the whole distribution: sample from that, unless a request says otherwise.
    p.sampling.top_k, p.sampling.top_p, p.sampling.min_p = 0, 1.0, 0.0
    p.verbosity, p.warmup, p.fit_params = -1, False, False
    return p
