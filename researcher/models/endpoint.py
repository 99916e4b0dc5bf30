"""A model on a server that speaks the OpenAI protocol: one call in, one typed completion or one typed error out.

A call waits for a permit of the endpoint's limiter, then has the total deadline for all its attempts. Each attempt
holds one permit from sending to the last byte; a wait between attempts holds none. Cancelling a call closes its
connection and gives the permit back before the cancellation leaves this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from researcher.errors import RequestRejected
from researcher.models.call import Call
from researcher.models.continuing import TokenRoute
from researcher.models.exchange import Exchange
from researcher.models.limiter import AdaptiveLimiter
from researcher.models.llamacpp import as_chat
from researcher.models.probe import Probe, probe_server
from researcher.models.requests import RequestEncoder, ServerKind
from researcher.models.retry import RetryPolicy
from researcher.models.steering import Steering
from researcher.models.stream import StreamFold
from researcher.models.tokenizer import Tokenizer
from researcher.models.transport import AiohttpTransport, Transport
from researcher.models.wire import completions_of, count
from researcher.protocols import Progress
from researcher.types import Capabilities, Completion, ModelRequest, Sampling

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Seconds in all for a call, seconds without a byte in a stream, bytes of a reply, and how to try again.

    The total begins when the call is first sent: time in our own queue is not the server's.
    """

    total: float = 600.0
    idle: float = 120.0
    body: int = 32 * 2**20
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Endpoint:
    """A Model on one server. Use it from any number of tasks of one event loop; close it at the end."""

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        transport: Transport | None = None,
        client: httpx.AsyncClient | None = None,
        limits: CallLimits | None = None,
        limiter: AdaptiveLimiter | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        versions: bool = False,
        plain: bool = False,
    ) -> None:
        """`model` None: the only one there. `client`: a user's own httpx client, which stays theirs to close.

        `versions`: a vLLM server that was started with --enable-scale-out, whose replies are to say which version of
        the weights sampled which token; its model must write Qwen's format, which is then read here.

        `plain`: calls for token ids that are not to stream do not stream at llama.cpp either, which computes them to
        their end when their caller has gone: for replies that take seconds and are seldom cut off.
        """
        self.limits = limits or CallLimits()
        self.limiter = limiter or AdaptiveLimiter(maximum=_descriptors())
        self._exchange = Exchange(
            base_url, transport or _transport(client, self.limits.body), api_key=api_key, idle=self.limits.idle
        )
        self._name, self._sleep, self.versions, self._plain = model, sleep, versions, plain
        self._encoder = RequestEncoder()
        self._probe: Probe | None = None
        self._route: TokenRoute | None = None
        self._only_chat = False
        self._probing = asyncio.Lock()
        self._steering: Steering | None = None

    def __repr__(self) -> str:
        return f"<Endpoint {self.uri}>"

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._exchange.base_url

    @property
    def uri(self) -> str:
        """The URI that names the model, without any key."""
        name = self.model
        return f"{self._exchange.base_url}#{name}" if name else self._exchange.base_url

    @property
    def model(self) -> str | None:
        """The model's name on the server; None until it was probed where no name was given."""
        return self._probe.model if self._probe else self._name

    async def probe(self) -> Probe:
        """The server's kind and what it can do, asked once. Raises ModelError."""
        async with self._probing:
            if self._probe is None:
                self._probe = await probe_server(self._exchange, self._name)
                if self._probe.slots is not None:  # what runs there, and the next ones at its door
                    self.limiter.cap(self._probe.slots + 2)
                if self._probe.capabilities.metrics:
                    self._steering = Steering(self._exchange, self.limiter, sleep=self._sleep)
        return self._probe

    async def capabilities(self) -> Capabilities:
        """What the server can do; probed once, then kept."""
        return (self._probe or await self.probe()).capabilities

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        """One completion. Raises ModelError. A cancelled call closes its request and gives back its permit."""
        if progress is not None and progress.on_confidence is not None:
            request = msgspec.structs.replace(request, stream=True)
        if request.raw or request.prefix:
            return await self._continued(request, progress or Progress())
        if self.versions:
            done = await self._by_ids(request, self._probe or await self.probe(), progress or Progress())
            return as_chat(done, tools=bool(request.tools))
        if _wants_tokens(request.sampling) or _keeps_stop(request.sampling):
            probe = self._probe or await self.probe()
            if probe.kind is ServerKind.LLAMA_CPP and probe.capabilities.token_ids:
                done = await self._by_ids(request, probe, progress or Progress())
                return as_chat(done, tools=bool(request.tools))
            if probe.kind is ServerKind.LLAMA_CPP and request.tools:
                request = msgspec.structs.replace(request, stream=False)  # it refuses logprobs for such a stream
        return await self._chat(request, progress)

    async def complete_many(self, request: ModelRequest, n: int, progress: Progress | None = None) -> list[Completion]:
        """`n` completions of one request; the usage of all is on the first. Raises ModelError."""
        name, kind, request = await self._prepared(msgspec.structs.replace(request, stream=False))
        body = self._encoder.chat(request, name, kind, n=n)
        return await self._whole("/chat/completions", body, name, progress, request)

    async def _chat(self, request: ModelRequest, progress: Progress | None) -> Completion:
        if not request.stream:
            return (await self.complete_many(request, 1, progress))[0]
        name, kind, request = await self._prepared(request)
        body = self._encoder.chat(request, name, kind)
        counted = progress or Progress()

        async def send() -> Completion:
            fold = StreamFold(counted, raw=request.raw, top=request.sampling.top_logprobs)
            # llama.cpp closes the connection after a stream, although it says that it keeps it.
            await self._exchange.stream("/chat/completions", body, fold.add, last=kind is ServerKind.LLAMA_CPP)
            return fold.completion(name)

        return await self._followed(send, counted)

    async def _continued(self, request: ModelRequest, progress: Progress) -> Completion:
        """What comes next in the assistant's turn: from ids where the server takes them, else by a prefilled chat."""
        probe = self._probe or await self.probe()
        if probe.kind is ServerKind.LLAMA_CPP:
            return await self._by_ids(request, probe, progress)
        if probe.kind is ServerKind.VLLM and not self._only_chat:
            try:
                return await self._by_ids(request, probe, progress)
            except RequestRejected as fault:
                if fault.status not in (404, 405):
                    raise
                self._only_chat = True  # a gateway that lets through /v1 alone, or the chat route alone
        if not probe.capabilities.prefill:
            raise RequestRejected(
                f"{self.base_url} cannot continue a begun reply; vLLM, SGLang and llama.cpp can, and the embedded model"
            )
        done = await self._chat(msgspec.structs.replace(request, raw=True), progress)
        if done.message.reasoning or done.message.tool_calls:
            raise RequestRejected(
                f"{self.base_url} takes replies apart, so that they cannot be continued word by word; let /tokenize "
                "and /v1/completions through, or start the server without its reasoning and tool parsers"
            )
        return done

    async def _by_ids(self, request: ModelRequest, probe: Probe, progress: Progress) -> Completion:
        if self._route is None:
            self._route = TokenRoute(
                self._exchange,
                self._encoder,
                probe.kind,
                probe.model,
                probe.capabilities.context,
                versions=self.versions,
                plain=self._plain,
            )
        route = self._route
        return await self._followed(lambda: route.complete(request, progress), progress)

    def sibling(self, name: str) -> Endpoint:
        """Another model of the same server (an adapter of this one), with connections of its own."""
        return Endpoint(self.base_url, name, api_key=self._exchange.key, limits=self.limits)

    async def ids_of(self, text: str) -> tuple[int, ...]:
        """The ids that the server's own tokenizer has for a text (vLLM, llama.cpp). Raises ModelError."""
        probe = self._probe or await self.probe()
        return await Tokenizer(self._exchange, self._encoder, probe.kind, probe.model).ids(text)

    @property
    def exchange(self) -> Exchange:
        """Requests to the server outside of the protocol, with its key."""
        return self._exchange

    async def aclose(self) -> None:
        """Close the connections."""
        if self._steering is not None:
            await self._steering.aclose()
        self.limiter.close()
        await self._exchange.aclose()

    async def _prepared(self, request: ModelRequest) -> tuple[str, ServerKind, ModelRequest]:
        """The model's name, the server's dialect, and the request without what the server cannot give."""
        wants, keeps = _wants_tokens(request.sampling), _keeps_stop(request.sampling)
        probe = self._probe or (await self.probe() if wants or keeps or self._name is None else None)
        if probe is None:
            return self._name or "", ServerKind.GENERIC, request
        if keeps and not probe.kind.keeps_stop:
            raise RequestRejected(f"{self.base_url} cannot keep the stop string in a chat's reply; vLLM and SGLang can")
        can = probe.capabilities
        if wants and not (can.token_ids and can.logprobs):
            sampling = msgspec.structs.replace(
                request.sampling,
                logprobs=request.sampling.logprobs and can.logprobs,
                token_ids=request.sampling.token_ids and (can.token_ids or can.logprobs),
                top_logprobs=request.sampling.top_logprobs if can.logprobs else 0,
            )
            request = msgspec.structs.replace(request, sampling=sampling)
        return probe.model, probe.kind, request

    async def _whole(
        self, path: str, body: bytes, name: str, progress: Progress | None, request: ModelRequest
    ) -> list[Completion]:
        async def send() -> list[Completion]:
            reply = await self._exchange.reply(path, body)
            found = completions_of(reply, name, raw=request.raw, top=request.sampling.top_logprobs)
            count(progress, found[0])
            return found

        call = self._call(send)
        found = await call.run()
        self.limiter.succeeded(call.seconds, found[0].usage.completion_tokens if found[0].usage else 1.0)
        if call.attempts > 1:
            found[0] = msgspec.structs.replace(found[0], attempts=call.attempts)
        return found

    async def _followed(self, send: Callable[[], Awaitable[Completion]], progress: Progress) -> Completion:
        """What a streaming `send` returns, tried as often as the policy allows."""
        call = self._call(send)
        found = await call.run()
        self.limiter.succeeded(call.seconds, progress.completion_tokens)
        return msgspec.structs.replace(found, attempts=call.attempts) if call.attempts > 1 else found

    def _call(self, send: Callable[[], Awaitable[T]]) -> Call[T]:
        if self._steering is not None:
            self._steering.wake()
        return Call(
            send,
            limiter=self.limiter,
            policy=self.limits.retry,
            total=self.limits.total,
            where=self._exchange.base_url,
            sleep=self._sleep,
        )


def _wants_tokens(sampling: Sampling) -> bool:
    return sampling.token_ids or sampling.logprobs or sampling.top_logprobs > 0


def _keeps_stop(sampling: Sampling) -> bool:
    return sampling.keep_stop and bool(sampling.stop)


def _descriptors() -> int:
    """How many connections this process may have, with a share left for files and tools."""
    try:
        import resource
    except ImportError:  # not on Windows, where sockets are no descriptors
        return 16_384
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 16_384 if soft == resource.RLIM_INFINITY else max(16, min(16_384, soft - max(64, soft // 8)))


def _transport(client: httpx.AsyncClient | None, cap: int) -> Transport:
    if client is None:
        return AiohttpTransport(cap=cap)
    from researcher.models.httpx_transport import HttpxTransport

    return HttpxTransport(client, cap=cap)
