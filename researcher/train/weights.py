"""Weights as a network to train, and back: a GGUF of the embedded architecture, or a transformers folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from researcher.errors import UserError
from researcher.train.embedded.convert import Packed, from_bits, read_gguf, to_bits, write_gguf
from researcher.train.folder import Folder, load_folder, read_folder, save_folder

Weights = Packed | Folder
"""Both have a `config`, a `tokenizer` and a `chat_template`."""


def read_weights(path: Path) -> Weights:
    """What the file or folder holds. Raises UserError where it is not of an architecture that can be trained here."""
    return read_folder(path) if path.is_dir() else read_packed(path)


def read_packed(path: Path) -> Packed:
    """What the file holds. Raises UserError where it is not of the architecture that can be trained here."""
    if path.is_dir():
        raise UserError(f"{path} is a transformers folder, and this needs weights in one file: embedded or gguf:PATH.")
    try:
        return read_gguf(path)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be trained: it is not a Qwen3 model in bfloat16 with the embedded model's tokenizer "
            f"({type(error).__name__}: {error})."
        ) from None


def load_net(packed: Weights) -> nn.Module:
    """The network in float32, with dropout off."""
    if isinstance(packed, Folder):
        return load_folder(packed)
    config: dict[str, Any] = {name: value for name, value in packed.config.items() if name != "torch_dtype"}
    net: Any = Qwen3ForCausalLM(Qwen3Config(**config))
    weights = {name: torch.from_numpy(from_bits(bits).copy()) for name, bits in packed.weights.items()}
    missing, unexpected = net.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # tied to the embeddings
        raise UserError(f"the model's weights do not fit its shape: {', '.join([*missing, *unexpected][:3])}.")
    made: nn.Module = net.float().eval()
    return made


def save_net(net: nn.Module, packed: Weights, path: Path) -> Path:
    """The file, whole or not there, that now holds the weights in bfloat16, with the tokenizer of `packed`; of a
    folder's model a folder, without the file's ending."""
    if isinstance(packed, Folder):
        return save_folder(net, packed, path.with_suffix(""))
    bits = {
        name: to_bits(value.detach().float().cpu().numpy())
        for name, value in net.state_dict().items()
        if name in packed.weights
    }
    if set(bits) != set(packed.weights):
        raise ValueError("the trained model has other parameters than the one it began with")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    write_gguf(part, packed._replace(weights=bits))
    os.replace(part, path)
    return path
