"""New weights to a running vLLM: whole ones in place, or adapters, each version under a name of its own.

A publish is not believed but proved: the server's checksums of its parameters must have changed where it gives them,
else the logprobs of a fixed reply. A server that samples old weights ends the training (CanaryFailed).
"""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack, suppress
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import torch
from torch import Tensor, nn

from researcher.errors import ModelError, UserError
from researcher.models.endpoint import Endpoint
from researcher.protocols import Model
from researcher.train.folder import Folder, check_room, save_folder, weights_of
from researcher.train.publish.control import Control
from researcher.train.publish.live import LiveModel
from researcher.train.publish.versioned import SAME, CanaryFailed, VersionedModel, apart, said

EMPTY = sha256(b"").hexdigest()
"""What the server says of a parameter whose numbers it has elsewhere."""


class WholePublisher:
    """Writes the weights of a version as a folder and has the server read it in place of the one before."""

    def __init__(self, base: Folder, folder: Path, control: Control) -> None:
        self._base, self._folder, self._control = base, folder.absolute(), control
        self._last: dict[str, str] = {}

    async def begin(self, net: nn.Module, target: LiveModel, *, reload: bool = False) -> None:
        """Name the weights that the server begins with, which are those of `net`; with `reload` it reads them first."""
        weights = await anyio.to_thread.run_sync(weights_of, net, self._base.dtype)
        self._last = digests(weights)
        if not reload:
            await self._name(target, target.version)
            return
        # Not the folder that they came from: vLLM leaves a head that is tied, and not in the file, as it was before.
        path = self._folder / target.version
        await anyio.to_thread.run_sync(save_folder, net, self._base, path, weights)
        await target.change(lambda: self._swap(path, target, target.version), target.version)

    async def _name(self, target: LiveModel, version: str) -> None:
        """A server that keeps no names of versions cannot say who sampled what, so nothing may be under way."""
        if not await self._control.name(version):
            target.splits = False

    async def publish(self, net: nn.Module, target: VersionedModel, version: str) -> float:
        """Go over to the weights of `net`; how far its canary moved. Folders of older versions are removed.

        Where the step was too small for the folder's dtype to show, the weights in use are these already: 0.0, and no
        change. Raises CanaryFailed, UserError, ModelError.
        """
        assert isinstance(target, LiveModel)
        weights = await anyio.to_thread.run_sync(weights_of, net, self._base.dtype)
        new = digests(weights)
        if new == self._last:
            return 0.0
        path = self._folder / version
        await anyio.to_thread.run_sync(save_folder, net, self._base, path, weights)
        before, held = await said(target), await self._control.checksums()
        # A reply whose prompt is in the cache already is computed otherwise, which is no proof of anything.
        noise = apart(before, await said(target)) if held is None else 0.0
        name = target.version
        await target.change(lambda: self._swap(path, target, version), version)
        try:
            proved = self._proved(version, held, await self._control.checksums(), new)
            far = apart(before, await said(target))
            if not proved and far <= noise:
                raise CanaryFailed(SAME)
        except CanaryFailed:
            await target.change(lambda: self._name(target, name), name)
            raise
        self._last = new
        await anyio.to_thread.run_sync(_only, self._folder, path)
        return far

    def _proved(
        self, version: str, before: dict[str, str] | None, after: dict[str, str] | None, new: dict[str, str]
    ) -> bool:
        """Whether the server's parameters changed as ours did; False where it does not say. Raises CanaryFailed.

        Parameters that it keeps under our names are compared: others it has put together, or packed away (the
        CPU build keeps nothing but packed copies of linear layers).
        """
        if before is None or after is None:
            return False
        seen = [
            name
            for name, digest in before.items()
            if digest != EMPTY and (plain := _plain(name)) in new and new[plain] != self._last.get(plain)
        ]
        if same := [name for name in seen if after.get(name) == before[name]]:
            raise CanaryFailed(
                f"{self._control.where} was given {version}, and {len(same)} of {len(seen)} parameters of its model "
                f"that should have changed did not ({_plain(same[0])}): it still has the old weights"
            )
        return bool(seen)

    async def _swap(self, path: Path, target: LiveModel, version: str) -> None:
        """Replies under way stay where they are meanwhile, and go on with the new weights."""
        control = self._control
        await control.pause()
        try:
            await control.reload(path)
            await self._name(target, version)
            await control.forget()
        finally:
            with anyio.CancelScope(shield=True):
                await control.resume()


class AdapterPublisher:
    """Writes the adapters of a version and has the server load them under a new name (one loaded again under its old
    name would meet the prefix cache of before); those before are unloaded when their last call has ended."""

    def __init__(self, base: Folder, folder: Path, control: Control, endpoint: Endpoint, net: nn.Module) -> None:
        """`net` has the adapters that add nothing yet: the server's own model is the first version."""
        self._base, self._folder, self._control, self._endpoint = base, folder.absolute(), control, endpoint
        self._last = digests(adapters_of(net, base.dtype))

    async def publish(self, net: nn.Module, target: VersionedModel, version: str) -> float:
        """Go over to the adapters of `net`; how far the canary moved. Raises CanaryFailed, UserError, ModelError."""
        new = digests(adapters_of(net, self._base.dtype))
        if new == self._last:
            return 0.0
        path = self._folder / version
        await anyio.to_thread.run_sync(_save_adapters, net, path)

        async def opened(stack: AsyncExitStack) -> Model:
            return await self._opened(stack, path, version)

        far = await target.switch(opened, version)
        self._last = new
        return far

    async def _opened(self, stack: AsyncExitStack, path: Path, version: str) -> Model:
        name = f"{self._endpoint.model}-{version}"
        with suppress(ModelError, UserError):
            await self._control.unload(name)  # another training may have left one of this name
        await self._control.load(name, path)
        stack.push_async_callback(self._gone, name, path)
        model = self._endpoint.sibling(name)
        stack.push_async_callback(model.aclose)
        return model

    async def _gone(self, name: str, path: Path) -> None:
        with suppress(ModelError, UserError):  # the server may have ended before us
            await self._control.unload(name)
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(path, ignore_errors=True))


def _plain(name: str) -> str:
    """The name of a parameter that the server calls "dp0:tp0:NAME", with or without the layer for adapters."""
    return name.rpartition(":")[2].replace(".base_layer.", ".")


def digests(weights: dict[str, Tensor]) -> dict[str, str]:
    """A digest of each tensor's bytes."""
    return {
        name: blake2b(value.reshape(-1).view(torch.uint8).numpy().tobytes(), digest_size=16).hexdigest()
        for name, value in weights.items()
    }


def adapters_of(net: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is trained, in the dtype that the server computes in."""
    return {n: p.detach().to("cpu", dtype) for n, p in net.named_parameters() if p.requires_grad}


def _save_adapters(net: nn.Module, path: Path) -> None:
    model: Any = net
    path.parent.mkdir(parents=True, exist_ok=True)
    check_room(path.parent, sum(p.nbytes for p in net.parameters() if p.requires_grad))
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path)


def _only(folder: Path, kept: Path) -> None:
    for entry in folder.iterdir():
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)
