"""Weights for the embedded engine: a GGUF for each version, written whole before it is opened."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import anyio.to_thread
import numpy as np
from torch import nn

from researcher.models.embedded import open_on_all_cores
from researcher.protocols import Model
from researcher.train.embedded.convert import Array, Packed, to_bits, write_gguf
from researcher.train.publish.versioned import VersionedModel


class EmbeddedPublisher:
    """Publishes to the embedded engine. `packed`: the model it began with, whose tokenizer and template stay."""

    def __init__(self, packed: Packed, folder: Path) -> None:
        self._packed, self._folder = packed, folder
        self._bits = packed.weights

    async def publish(self, net: nn.Module, target: VersionedModel, version: str) -> float:
        """Switch the target to the weights of `net`; how far its canary moved. Older files are removed.

        Where the step was too small for bfloat16 to show, the weights in use are these already: 0.0, and no switch.
        """
        path = self._folder / f"{version}.gguf"
        bits = await anyio.to_thread.run_sync(self.bits, net)
        if all(np.array_equal(bits[name], value) for name, value in self._bits.items()):
            return 0.0
        await anyio.to_thread.run_sync(self.write, bits, path)

        async def opened(stack: AsyncExitStack) -> Model:
            return await stack.enter_async_context(open_on_all_cores(path))

        moved = await target.switch(opened, version)
        self._bits = bits
        for old in self._folder.glob("*.gguf"):
            if old != path:
                old.unlink(missing_ok=True)  # the engine has read it whole
        return moved

    def bits(self, net: nn.Module) -> dict[str, Array]:
        """The weights in bfloat16. Raises ValueError for those of another architecture."""
        weights = {
            name: to_bits(value.detach().float().cpu().numpy())
            for name, value in net.state_dict().items()
            if name != "lm_head.weight"  # tied to the embeddings
        }
        if set(weights) != set(self._packed.weights):
            raise ValueError("the trained model has other parameters than the embedded one it is to replace")
        return weights

    def write(self, weights: dict[str, Array], path: Path) -> None:
        """A GGUF that is whole or not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        write_gguf(part, self._packed._replace(weights=weights))
        os.replace(part, path)
