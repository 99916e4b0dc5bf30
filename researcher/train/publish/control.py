"""The routes of a vLLM server by which its weights are changed (0.32), and a sentence for each flag that is missing.

Its development routes ask for no key, so whoever reaches the port can change the weights: they are used on this
machine alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from researcher.errors import RequestRejected, ServerFault, UserError
from researcher.models.exchange import Exchange

SECONDS = 600.0  # for one request: a large model is read from the disk in it
DEV = "start it with VLLM_SERVER_DEV_MODE=1"
ADAPTERS = "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"


class Control:
    """Changes the weights of one server. Raises UserError for a server that cannot, ModelError for one that failed."""

    def __init__(self, exchange: Exchange) -> None:
        host = urlsplit(exchange.base_url).hostname or ""
        if not _loopback(host):
            raise UserError(
                f"{exchange.base_url} is not on this machine, and the routes that change a server's weights ask for no "
                "key; train where the server runs, or use vllm:DIR, which starts one."
            )
        self._exchange = exchange

    @property
    def where(self) -> str:
        """The server's base URL."""
        return self._exchange.base_url

    async def reload(self, folder: Path) -> None:
        """Read the weights of this folder, an absolute path, in place of those it has."""
        wanted = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self._post("collective_rpc", wanted, DEV)

    async def name(self, version: str) -> bool:
        """Call the weights `version`; False where the server keeps no names of versions."""
        try:
            await self._post("update_weight_version", {"new_version": version}, DEV)
        except UserError:
            return False
        return True

    async def checksums(self) -> dict[str, str] | None:
        """A checksum of each parameter as the server holds it; None where it has no such route."""
        try:
            reply = await self._post("weight_checker", {"action": "checksum"}, DEV)
        except UserError:
            return None
        found = reply.get("checksums")
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) and found else None

    async def pause(self) -> None:
        """Compute nothing until `resume`; requests stay where they are."""
        await self._post("pause?mode=keep", {}, DEV)

    async def resume(self) -> None:
        """Go on."""
        await self._post("resume", {}, DEV)

    async def forget(self) -> None:
        """Drop what the cache holds of old weights; requests under way compute their beginning again."""
        reply = await self._post("reset_prefix_cache?reset_running_requests=true", {}, DEV)
        if reply.get("success") is False:
            raise ServerFault(f"{self.where} kept its prefix cache, which is of the old weights")

    async def load(self, name: str, folder: Path) -> None:
        """Serve the adapter of this folder, an absolute path, under a name."""
        await self._post("v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}, ADAPTERS)

    async def unload(self, name: str) -> None:
        """Serve it no longer."""
        await self._post("v1/unload_lora_adapter", {"lora_name": name}, ADAPTERS)

    async def check(self, *, adapters: bool) -> None:
        """Refuse at once a server that could not be published to. Raises UserError with the flag that it lacks."""
        route, flag = ("v1/load_lora_adapter", ADAPTERS) if adapters else ("collective_rpc", DEV)
        found = await self._exchange.get(f"{self._exchange.root}/{route}")  # 405 where the route is there: it is a POST
        if found.status == 404:
            raise UserError(self._lacks(route, flag))

    async def generates(self) -> bool:
        """Whether it offers the route whose replies say which weights sampled what (--enable-scale-out)."""
        try:
            await self._ask("inference/v1/generate", {})
        except RequestRejected as refused:
            return refused.status in (400, 422)
        return True

    async def _post(self, route: str, body: dict[str, Any], flag: str) -> dict[str, Any]:
        try:
            return await self._ask(route, body)
        except RequestRejected as refused:
            # A route that is not there says "Not Found", an adapter that is not there says so.
            if refused.status == 405 or (refused.status == 404 and "Not Found" in str(refused)):
                raise UserError(self._lacks(route, flag)) from None
            raise

    async def _ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(SECONDS):
                data = await self._exchange.ask(f"{self._exchange.root}/{route}", msgspec.json.encode(body))
        except TimeoutError:
            raise ServerFault(f"{self.where} did not answer /{route} within {SECONDS:g} s") from None
        try:
            reply = msgspec.json.decode(data) if data else {}
        except msgspec.DecodeError:
            return {}  # some of these routes answer in words
        return reply if isinstance(reply, dict) else {}

    def _lacks(self, route: str, flag: str) -> str:
        return (
            f"{self.where} has no /{route.partition('?')[0]}, so it cannot take new weights; {flag}, as vllm:DIR does."
        )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
