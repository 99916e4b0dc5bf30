"""The transport over a user's own httpx client: their proxies, certificates, authentication and tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from researcher.errors import ModelError, ServerFault
from researcher.models.transport import Incoming, broke_off, connect_fault, too_large


class HttpxTransport:
    """Requests through `client`, which its owner closes. Its timeouts are not used: the endpoint has deadlines."""

    def __init__(self, client: httpx.AsyncClient, *, cap: int = 32 * 2**20) -> None:
        self._client, self._cap = client, cap

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[Incoming]:
        """The reply, once its headers are here."""
        request = self._client.build_request(method, url, headers=dict(headers), content=body, timeout=None)
        response = await self._send(request)
        try:
            yield _HttpxReply(response, self._cap)
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        fault: ModelError
        try:
            return await self._client.send(request, stream=True, follow_redirects=False)
        except httpx.RemoteProtocolError as error:  # the errors hold the request, hence the key: never a cause
            gone = "disconnected" in str(error)
            fault = (
                connect_fault(error, str(request.url.copy_with(raw_path=b"/")))
                if gone
                else ServerFault("the reply is not valid HTTP")
            )
        except (httpx.HTTPError, OSError) as error:
            fault = connect_fault(_root(error), str(request.url.copy_with(raw_path=b"/")))
        raise fault

    async def aclose(self) -> None:
        """Nothing: the client is its owner's."""


class _HttpxReply:
    def __init__(self, response: httpx.Response, cap: int) -> None:
        self._chunks, self._left, self._cap = response.aiter_bytes(), cap, cap
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            async for chunk in self._chunks:
                self._left -= len(chunk)
                if self._left < 0:
                    raise too_large(self._cap)
                if chunk:
                    return chunk
            return b""
        except (httpx.HTTPError, OSError) as error:
            broken = broke_off(self._cap - self._left, error)
        raise broken


def _root(error: BaseException) -> Exception:
    """The operating system's error under httpx's, which has its number."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found if isinstance(found, Exception) else Exception(str(error))
