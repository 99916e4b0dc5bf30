"""The seam to HTTP: one request out, status, headers and bytes back; everything else is the endpoint's.

A transport raises only ModelError, bounds what it reads after decompression, follows no redirect, and closes the
connection of a reply that was not read to its end. The default is aiohttp (design/models.md has the measurement); its
own pool and timeouts are off, because the endpoint's limiter and deadlines bound every call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp
from yarl import URL

from researcher.errors import BadResponse, ConnectFault, ModelError, ServerFault

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})


class OutOfDescriptors(ConnectFault):
    """This process has no descriptor or port left for one more connection: send less, it is not the server."""


class Incoming(Protocol):
    """A reply whose body is still to come."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Case does not matter in the keys."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the decompressed body, none at its end. Raises BadResponse where it breaks off or passes
        the cap."""
        ...


class Transport(Protocol):
    """Sends requests; usable by any number of tasks at once."""

    def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        """The reply, once its headers are here; leaving the context closes what was not read."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


def too_large(cap: int) -> BadResponse:
    """The error for a body that passes the cap."""
    return BadResponse(f"the server's reply is larger than {cap:,} bytes; it was cut off")


def broke_off(size: int, error: Exception) -> BadResponse:
    """The error for a body that ended too early; another try may differ."""
    return BadResponse(f"the reply broke off after {size} bytes ({type(error).__name__})", retryable=True)


def connect_fault(error: OSError | Exception, where: str) -> ConnectFault:
    """A typed error for a connection that failed; starvation of this process is told apart."""
    number = getattr(error, "errno", None)
    if number in STARVED:
        return OutOfDescriptors("this process is out of file descriptors or ports; fewer calls are sent at once")
    why = os.strerror(number) if number else str(error) or type(error).__name__
    return ConnectFault(f"no answer from {where}: {why[0].lower()}{why[1:]}; is the server running?")


class AiohttpTransport:
    """Requests over one aiohttp session, made at first use."""

    def __init__(self, *, cap: int = 32 * 2**20) -> None:
        self._cap = cap
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[Incoming]:
        """The reply, once its headers are here."""
        response = await self._send(method, url, headers, body)
        try:
            yield _AiohttpReply(response, self._cap)
        finally:
            response.close()  # no effect once the body was read: the connection is back in the pool

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        session = self._session or self._start()
        target = self._urls.get(url) or self._urls.setdefault(url, URL(url))
        fault: ModelError
        try:
            return await session.request(method, target, headers=headers, data=body, allow_redirects=False)
        except (aiohttp.ClientResponseError, ValueError):
            # The library's error carries our request headers, hence the key: it must not become a cause.
            fault = ServerFault("the server's reply is not valid HTTP")
        except (aiohttp.ClientError, OSError) as error:
            fault = connect_fault(error, str(target.origin()))
        raise fault

    def _start(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class _AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse, cap: int) -> None:
        self._content, self._left, self._cap = response.content, cap, cap
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            chunk = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            broken = broke_off(self._cap - self._left, error)
        else:
            self._left -= len(chunk)
            if self._left < 0:
                raise too_large(self._cap)
            return chunk
        raise broken
