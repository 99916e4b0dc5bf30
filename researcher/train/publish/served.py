"""Where rollouts are sampled: the embedded engine for a GGUF, a vLLM server of our own for a transformers folder."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
from torch import nn

from researcher.errors import UserError
from researcher.models.embedded import open_on_all_cores
from researcher.models.endpoint import Endpoint
from researcher.models.llamacpp import writes_qwen
from researcher.models.uri import KEY, parse_model_uri
from researcher.models.vllm import VllmSettings, open_vllm
from researcher.protocols import Model
from researcher.train.embedded.convert import Packed
from researcher.train.folder import Folder
from researcher.train.loop import Publisher
from researcher.train.lora import LoraSettings
from researcher.train.publish.control import Control
from researcher.train.publish.embedded import EmbeddedPublisher
from researcher.train.publish.live import LiveModel
from researcher.train.publish.versioned import VersionedModel
from researcher.train.publish.vllm import AdapterPublisher, WholePublisher
from researcher.train.weights import Weights

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""In place of what a model's `generation_config.json` would have a server do unasked: a token that was drawn from a
truncated distribution has another probability than the trainer says."""
SAMPLING = (
    "--logprobs-mode", "processed_logprobs", "--override-generation-config", json.dumps(NEUTRAL),
)  # fmt: skip
FIRST = "v0"
Say = Callable[[str], None]


class Served(NamedTuple):
    """A model whose weights can be changed, and what changes them."""

    model: VersionedModel
    publisher: Publisher


@asynccontextmanager
async def open_sampler(path: Path, say: Say = lambda text: None) -> AsyncIterator[Model]:
    """The model of a GGUF or of a folder, to sample from."""
    if await anyio.Path(path).is_dir():
        async with open_vllm(str(path), args=SAMPLING, say=say) as endpoint:
            yield endpoint
    else:
        async with open_on_all_cores(path) as engine:
            yield engine


@asynccontextmanager
async def open_served(
    weights: Weights,
    net: nn.Module,
    path: Path,
    folder: Path,
    *,
    lora: LoraSettings | None,
    say: Say,
    server: str = "",
) -> AsyncIterator[Served]:
    """The model of `path`, whose weights are those of `net`; versions are written below `folder`.

    `server`: a vLLM that runs on this machine already and is to serve a folder's model; it is given its weights first.
    """
    async with AsyncExitStack() as stack:
        if isinstance(weights, Packed):
            inner = AsyncExitStack()
            engine = await inner.enter_async_context(open_on_all_cores(path))
            model = VersionedModel(engine, FIRST, stack=inner)
            stack.push_async_callback(model.aclose)
            yield Served(model, EmbeddedPublisher(weights, folder))
            return
        if server:
            endpoint = await _running(stack, server, weights, whole=lora is None)
        else:
            settings = VllmSettings(versions=lora is None and writes_qwen(weights.chat_template))
            env = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
            args = (*SAMPLING, *_adapting(lora))
            started = open_vllm(str(path), args=args, settings=settings, env=env, say=say)
            endpoint = await stack.enter_async_context(started)
        served = await served_by(endpoint, weights, net, folder, lora=lora, reload=bool(server))
        stack.push_async_callback(served.model.aclose)
        yield served


async def _running(stack: AsyncExitStack, server: str, weights: Folder, *, whole: bool) -> Endpoint:
    """An endpoint on a server that runs; with versions of the weights in its replies, where it can tell them."""
    [(url, name)] = parse_model_uri(server).served or [("", None)]
    if not url:
        raise UserError(f"server: {server} is no address of a server; write it as http://127.0.0.1:8000/v1#name")
    endpoint = Endpoint(url, name, api_key=os.environ.get(KEY) or None)
    stack.push_async_callback(endpoint.aclose)
    control = Control(endpoint.exchange)
    if not (whole and writes_qwen(weights.chat_template) and await control.generates()):
        return endpoint
    telling = Endpoint(url, name, api_key=os.environ.get(KEY) or None, versions=True)
    stack.push_async_callback(telling.aclose)
    return telling


async def served_by(
    endpoint: Endpoint,
    weights: Folder,
    net: nn.Module,
    folder: Path,
    *,
    lora: LoraSettings | None = None,
    reload: bool = False,
) -> Served:
    """The same on a server that has the weights of `net`, or is to have them first (`reload`). Raises UserError for one
    that could not take new weights, or whose tokenizer is another than the folder's."""
    control = Control(endpoint.exchange)
    await control.check(adapters=lora is not None)
    await same_tokenizer(endpoint, weights)
    if lora is not None:
        return Served(VersionedModel(endpoint, FIRST), AdapterPublisher(weights, folder, control, endpoint, net))
    model = LiveModel(endpoint, FIRST, splits=endpoint.versions)
    publisher = WholePublisher(weights, folder, control)
    await publisher.begin(net, model, reload=reload)
    return Served(model, publisher)


TEXT = "Make 24 from 3, 5 and 8: 3 * 8 = 24. Überprüfung\n<think>"


async def same_tokenizer(endpoint: Endpoint, weights: Folder) -> None:
    """Raise UserError where the server and the folder have other ids for the same text."""
    theirs = await endpoint.ids_of(TEXT)
    mine = tuple(weights.tokenizer.encode(TEXT, add_special_tokens=False).ids)
    if theirs != mine:
        raise UserError(
            f"{endpoint.uri} has another tokenizer than {weights.path}, so what it samples is not what would be "
            "trained; serve the folder itself."
        )


def _adapting(lora: LoraSettings | None) -> tuple[str, ...]:
    """Two at once: calls under way end with the adapter that they began with."""
    if lora is None:
        return ()
    return ("--enable-lora", "--max-lora-rank", str(lora.bound), "--max-loras", "2", "--max-cpu-loras", "8")
