"""The GGUF under llama.cpp, as users meet it: `with serve(path) as model: model.chat(messages, tools)`."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from researcher.train.embedded.tasks.example import TOOLS, Message

CONTEXT = 2048


class Served:
    """A llama.cpp server in this process; its methods may be called from many threads."""

    def __init__(self, path: Path, slots: int, threads: int) -> None:
        import xllamacpp

        p = xllamacpp.CommonParams()
        self._key = secrets.token_urlsafe(16)
        p.model.path, p.hostnames, p.port, p.api_keys = str(path), ["127.0.0.1"], 0, [self._key]
        p.n_parallel, p.n_ctx, p.kv_unified, p.cont_batching = slots, slots * CONTEXT, False, True
        p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
        p.n_threads_http, p.use_jinja = slots + 4, True
        p.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
        p.sampling.top_k, p.sampling.top_p, p.sampling.min_p = 0, 1.0, 0.0
        p.ui, p.verbosity, p.warmup, p.fit_params = False, -1, False, False
        self.slots = slots
        self._native: Any = xllamacpp.Server(p)
        self._address = urlsplit(self._native.listening_address)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's JSON reply; raises on any status but 200."""
        try:
            status, text = self._exchange(path, json.dumps(body))
        except (http.client.RemoteDisconnected, ConnectionError):  # the server closes a connection after idle seconds
            self._local.connection.close()  # which makes the next request open it again
            status, text = self._exchange(path, json.dumps(body))
        if status != 200:
            raise RuntimeError(f"{path}: {status} {text[:200]!r}")
        decoded: dict[str, Any] = json.loads(text)
        return decoded

    def _exchange(self, path: str, body: str) -> tuple[int, bytes]:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=600)
            self._local.connection = connection
            self._connections.append(connection)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[str] = (),
        *,
        temperature: float = 0.0,
        limit: int = 900,
        seed: int = 0,
        **more: Any,
    ) -> dict[str, Any]:
        """The first choice of a chat completion, with `usage` beside it; `more` goes into the request."""
        body: dict[str, Any] = {
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": limit,
            "seed": seed,
            **more,
        }
        if tools:
            body["tools"] = [TOOLS[tool] for tool in tools]
        reply = self.post("/v1/chat/completions", body)
        return {**reply["choices"][0], "usage": reply["usage"]}

    def close(self) -> None:
        """Stop the server."""
        for connection in self._connections:
            connection.close()
        self._native = None


@contextmanager
def serve(path: Path, *, slots: int = 16, threads: int = 1) -> Iterator[Served]:
    """The model, served until the block ends."""
    served = Served(path, slots, threads)
    try:
        yield served
    finally:
        served.close()
