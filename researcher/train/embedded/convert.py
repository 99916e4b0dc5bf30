"""Checkpoint -> GGUF -> a folder that transformers and vLLM load; the second half needs no torch.

Every weight is rounded to bfloat16 on the way into the GGUF, so that both sides hold the same numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from researcher.train.embedded import tokenizer as tokens
from researcher.train.embedded.chat import CHAT_TEMPLATE, SPECIAL_TOKENS

Array = NDArray[Any]

NAME = "researcher embedded reasoner"
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_BACK = {theirs: ours for ours, theirs in _LAYER.items()}


class Packed(NamedTuple):
    """What a GGUF of this model holds."""

    config: dict[str, Any]
    """Transformers' `config.json`."""
    weights: dict[str, Array]
    """bfloat16 bits as uint16, by transformers' names."""
    tokenizer: Tokenizer
    chat_template: str


def to_bits(values: Array) -> Array:
    """float32 rounded to the nearest bfloat16, as uint16."""
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16).astype(np.uint16)


def from_bits(bits: Array) -> Array:
    """bfloat16 bits as float32."""
    wide: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return wide


def averaged(parts: Sequence[tuple[float, Packed]]) -> Packed:
    """Weights between those of models that were trained from the same ones (Wortsman et al. 2022), all else the
    first's; the shares are of their sum. Raises ValueError where the models are not alike."""
    first = parts[0][1]
    shapes = {name: bits.shape for name, bits in first.weights.items()}
    if any({name: bits.shape for name, bits in each.weights.items()} != shapes for _, each in parts):
        raise ValueError("the models have other weights than the first one")
    whole = sum(share for share, _ in parts)
    if whole <= 0 or any(share < 0 for share, _ in parts):
        raise ValueError("the shares must be positive")
    weights = {
        name: to_bits(np.asarray(sum(share / whole * from_bits(each.weights[name]) for share, each in parts)))
        for name in shapes
    }
    return first._replace(weights=weights)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor that transformers calls `name`."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if match:
        return f"blk.{match[1]}.{_LAYER[match[2]]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def hf_name(name: str) -> str:
    """Transformers' name of a tensor that llama.cpp calls `name`."""
    match = re.fullmatch(r"blk\.(\d+)\.(.+)\.weight", name)
    if match:
        return f"model.layers.{match[1]}.{_BACK[match[2]]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def write_gguf(path: Path, packed: Packed) -> None:
    """The GGUF file: matrices in bfloat16, norms in float32 (of bfloat16 values)."""
    writer = gguf.GGUFWriter(path, "qwen3")
    _write_shape(writer, packed.config)
    _write_tokenizer(writer, packed)
    for name, bits in packed.weights.items():
        if bits.ndim == 1:
            writer.add_tensor(gguf_name(name), from_bits(bits))
        else:
            raw = np.ascontiguousarray(bits).view(np.uint8)
            writer.add_tensor(gguf_name(name), raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(writer: gguf.GGUFWriter, packed: Packed) -> None:
    listed = tokens.tokens_of(packed.tokenizer)
    first = len(listed) - len(SPECIAL_TOKENS)
    types = [gguf.TokenType.NORMAL] * first
    types += [gguf.TokenType.CONTROL if i < 3 else gguf.TokenType.USER_DEFINED for i in range(len(SPECIAL_TOKENS))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(listed)
    writer.add_token_types(types)
    writer.add_token_merges([f"{a} {b}" for a, b in tokens.merges_of(packed.tokenizer)])
    writer.add_eos_token_id(listed.index("<|im_end|>"))
    writer.add_pad_token_id(listed.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(packed.chat_template)


def read_gguf(path: Path) -> Packed:
    """What the GGUF file holds, without torch."""
    reader = gguf.GGUFReader(path)
    field = {name: value.contents() for name, value in reader.fields.items()}
    merges = [tuple(merge.split(" ")) for merge in field["tokenizer.ggml.merges"]]
    weights: dict[str, Array] = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        plain = tensor.tensor_type == gguf.GGMLQuantizationType.F32
        bits = to_bits(tensor.data) if plain else np.ascontiguousarray(tensor.data).view(np.uint16)
        weights[hf_name(tensor.name)] = bits.reshape(shape)
    made = tokens.from_parts(field["tokenizer.ggml.tokens"], [(a, b) for a, b in merges])
    return Packed(_config(field), weights, made, field["tokenizer.chat_template"])


def _config(field: dict[str, Any]) -> dict[str, Any]:
    listed = field["tokenizer.ggml.tokens"]
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": len(listed),
        "hidden_size": field["qwen3.embedding_length"],
        "num_hidden_layers": field["qwen3.block_count"],
        "num_attention_heads": field["qwen3.attention.head_count"],
        "num_key_value_heads": field["qwen3.attention.head_count_kv"],
        "head_dim": field["qwen3.attention.key_length"],
        "intermediate_size": field["qwen3.feed_forward_length"],
        "rope_theta": round(float(field["qwen3.rope.freq_base"]), 3),
        "rope_parameters": {"rope_type": "default", "rope_theta": round(float(field["qwen3.rope.freq_base"]), 3)},
        "rms_norm_eps": float(f"{field['qwen3.attention.layer_norm_rms_epsilon']:.6g}"),
        "max_position_embeddings": field["qwen3.context_length"],
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
        "eos_token_id": listed.index("<|im_end|>"),
        "pad_token_id": listed.index("<|endoftext|>"),
        "bos_token_id": None,
    }


def export_hf(path: Path, folder: Path) -> None:
    """Write the GGUF's model as a folder that transformers and vLLM load."""
    packed = read_gguf(path)
    folder.mkdir(parents=True, exist_ok=True)
    config = packed.config
    ends = {"eos_token_id": [config["eos_token_id"], config["pad_token_id"]], "pad_token_id": config["pad_token_id"]}
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "chat_template": packed.chat_template,
    }
    for name, value in (
        ("config.json", config),
        ("generation_config.json", ends),
        ("tokenizer_config.json", special),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(packed.chat_template, "utf-8")
    packed.tokenizer.save(str(folder / "tokenizer.json"))
    write_safetensors(folder / "model.safetensors", packed.weights)


def write_safetensors(path: Path, weights: dict[str, Array]) -> None:
    """The weights as a bfloat16 safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, bits in weights.items():
        header[name] = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [at, at + bits.nbytes]}
        at += bits.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for bits in weights.values():
            file.write(np.ascontiguousarray(bits).tobytes())


def from_checkpoint(path: Path, tokenizer: Tokenizer, *, mean: bool) -> Packed:
    """A training checkpoint, ready to be written; `mean` takes the averaged weights."""
    import torch

    from researcher.train.embedded.model import Shape

    state = torch.load(path, weights_only=True)
    weights = {name: to_bits(value.float().numpy()) for name, value in state["mean" if mean else "model"].items()}
    return Packed(Shape(**state["shape"]).config(), weights, tokenizer, CHAT_TEMPLATE)


def from_hf(folder: Path) -> Packed:
    """A transformers folder of this architecture (bfloat16 or float32), ready to be written as GGUF."""
    from safetensors import deserialize

    config = json.loads((folder / "config.json").read_text("utf-8"))
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    weights: dict[str, Array] = {}
    for name, entry in deserialize((folder / "model.safetensors").read_bytes()):  # type: ignore[no-untyped-call]
        if name == "lm_head.weight":  # tied
            continue
        kind = {"BF16": np.uint16, "F32": np.float32}[entry["dtype"]]
        values: Array = np.frombuffer(entry["data"], kind).reshape(entry["shape"])
        weights[name] = to_bits(values) if kind is np.float32 else values
    template = (folder / "chat_template.jinja").read_text("utf-8")
    return Packed(
        {**config, "rope_theta": theta}, weights, Tokenizer.from_file(str(folder / "tokenizer.json")), template
    )
