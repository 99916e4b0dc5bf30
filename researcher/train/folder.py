"""A transformers folder of any causal language model as weights to train: `read_folder(path)`, and back."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from researcher.errors import UserError
from researcher.train.fits import refuse_misfit

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*", "*.bin", "*.pt", "*.gguf")
"""What of a folder is weights; the rest goes with them: shape, tokenizer, template."""
TEMPLATE = "chat_template.jinja"
ROOM = 1.05  # of the weights' own size, for what a file of them has besides


class Folder(NamedTuple):
    """What is read at once; the weights are read when they are needed."""

    path: Path
    config: dict[str, Any]
    """Transformers' `config.json`."""
    tokenizer: Tokenizer
    chat_template: str

    @property
    def dtype(self) -> torch.dtype:
        """That in which the weights are kept between stages, and published."""
        name = str(self.config.get("dtype") or self.config.get("torch_dtype") or "float32").removeprefix("torch.")
        found = getattr(torch, name, None)
        return found if isinstance(found, torch.dtype) and found.is_floating_point else torch.float32


def read_folder(path: Path) -> Folder:
    """What the folder says. Raises UserError where it is not one, or its parts do not fit together."""
    config = _json(path / "config.json")
    file = path / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{path} has no tokenizer.json; save the model's tokenizer there (save_pretrained).")
    if not any(path.glob("*.safetensors")):
        raise UserError(f"{path} has no *.safetensors; save the model there (save_pretrained).")
    tokenizer = Tokenizer.from_file(str(file))
    known, size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1, _vocabulary(config)
    if known > size:
        raise UserError(
            f"{path}: its tokenizer has {known} tokens and its model {size}, so they are not of one model; put the "
            "model's own tokenizer there."
        )
    return Folder(path, config, tokenizer, _template(path))


def load_folder(folder: Folder) -> nn.Module:
    """The network in float32, with dropout off. Raises UserError where transformers cannot load it."""
    try:
        with _quiet():
            net: Any = AutoModelForCausalLM.from_pretrained(
                folder.path, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True,
                trust_remote_code=False,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"{folder.path} cannot be loaded by transformers ({_short(error)}).") from None
    except MemoryError:
        raise UserError(
            f"{folder.path} does not fit into memory: float32 needs 4 bytes a weight, and AdamW 12."
        ) from None
    made: nn.Module = net.float().eval()
    try:
        refuse_misfit(made, _vocabulary(folder.config))
    except UserError as error:
        raise UserError(f"{folder.path} cannot be trained: {error}") from None
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers' own, and no warnings."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        if shown:
            bars.enable_progress_bar()


def weights_of(net: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights by their names, in this dtype, on the CPU; what adapters add is in them, not in the network's own."""
    with torch.no_grad():
        inner: Any = getattr(net, "get_base_model", lambda: net)()
        adds = {
            f"{name}.weight": module.get_delta_weight("default")
            for name, module in inner.named_modules()
            if hasattr(module, "get_delta_weight")
        }
        state: dict[str, Tensor] = {}
        for name, value in inner.state_dict().items():
            if ".lora_" not in name:
                plain = name.replace(".base_layer.", ".")
                whole = (value + adds[plain] if plain in adds else value).detach()
                # A copy: of tensors that share their numbers only one would be written, and a server that finds no
                # head in the file keeps the one it has, tied or not (vLLM 0.32 on the CPU).
                state[plain] = whole.to("cpu", dtype if whole.is_floating_point() else whole.dtype, copy=True)
        return state


def save_folder(net: nn.Module, folder: Folder, path: Path, weights: Mapping[str, Tensor] | None = None) -> Path:
    """A folder, whole or not there, with the network's weights and what else `folder` has. Raises UserError where the
    disk has no room for it."""
    state = dict(weights_of(net, folder.dtype) if weights is None else weights)
    base: Any = getattr(net, "get_base_model", lambda: net)()
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    check_room(path.parent, sum(value.nbytes for value in state.values()))
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _quiet():
            base.save_pretrained(part, state_dict=state)
        for file in folder.path.iterdir():
            if file.is_file() and not any(file.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(file, part / file.name)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(f"{path.parent} cannot be written ({error.strerror or error}).") from None
    shutil.rmtree(path, ignore_errors=True)
    os.replace(part, path)
    return path


def check_room(place: Path, size: int) -> None:
    """Raise UserError where the disk of `place` has no room for so many bytes of weights."""
    free = shutil.disk_usage(place).free
    if free < size * ROOM:
        raise UserError(
            f"{place} has {free / 2**30:.2f} GiB left on its disk, and a version of the weights takes "
            f"{size * ROOM / 2**30:.2f} GiB; make room, or choose another --out."
        )


def _vocabulary(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    size = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, dict) else None)
    return int(size or 0)


def _template(path: Path) -> str:
    if (file := path / TEMPLATE).is_file():
        return file.read_text("utf-8")
    settings = path / "tokenizer_config.json"
    found = _json(settings).get("chat_template") if settings.is_file() else None
    if isinstance(found, str):
        return found
    raise UserError(f"{path} has no chat template, so its model cannot be asked; put a {TEMPLATE} there.")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} holds no model: it has no {path.name}; name the directory that has it."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from None
    return found if isinstance(found, dict) else {}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
