"""The model: Qwen3's architecture in plain torch, small and fast to train on a CPU.

The parameter names are transformers' own, so a state dict is a checkpoint of `Qwen3ForCausalLM`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from researcher.train.embedded.attention import attend


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the model."""

    vocabulary: int = 1024
    width: int = 192
    layers: int = 6
    heads: int = 4
    head_width: int = 32
    inner: int = 512
    theta: float = 10_000.0
    epsilon: float = 1e-6
    context: int = 2048

    def config(self) -> dict[str, Any]:
        """Transformers' `config.json`."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.head_width,
            "intermediate_size": self.inner,
            "rope_theta": self.theta,
            "rms_norm_eps": self.epsilon,
            "max_position_embeddings": self.context,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "initializer_range": 0.02,
            "torch_dtype": "bfloat16",
        }

    def as_dict(self) -> dict[str, Any]:
        """The sizes by name."""
        return asdict(self)


class Norm(nn.Module):
    """RMS normalisation with a gain, in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalised over the last axis, in the type of `x`."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon)
        return (self.weight * y).to(x.dtype)


class Linear(nn.Linear):
    """A matrix without a bias, applied in the type of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The product in the type of `x`; the weight itself stays float32."""
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Causal attention with normalised queries and keys and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.heads * shape.head_width
        self.heads, self.head_width = shape.heads, shape.head_width
        self.q_proj = Linear(shape.width, inner)
        self.k_proj = Linear(shape.width, inner)
        self.v_proj = Linear(shape.width, inner)
        self.o_proj = Linear(inner, shape.width)
        self.q_norm = Norm(shape.head_width, shape.epsilon)
        self.k_norm = Norm(shape.head_width, shape.epsilon)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mixed over the positions up to each."""
        rows, length, _ = x.shape
        apart = (rows, length, self.heads, self.head_width)
        flat = (rows * self.heads, length, self.head_width)
        q = rotate(self.q_norm(self.q_proj(x).view(apart)), cosine, sine) * self.head_width**-0.5
        k = rotate(self.k_norm(self.k_proj(x).view(apart)), cosine, sine)
        v = self.v_proj(x).view(apart)
        y = attend(*(t.transpose(1, 2).reshape(flat).contiguous() for t in (q, k, v)))
        y = y.view(rows, self.heads, length, self.head_width)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(rows, length, -1))
        return out


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions, halves paired as in transformers."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = Linear(shape.width, shape.inner)
        self.up_proj = Linear(shape.width, shape.inner)
        self.down_proj = Linear(shape.inner, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """The gated product, back at the width of `x`."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = Norm(shape.width, shape.epsilon)
        self.post_attention_layernorm = Norm(shape.width, shape.epsilon)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """The residual stream after this block."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    """Embedding, blocks and the last norm (transformers' `model.`)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)


class Reasoner(nn.Module):
    """The whole model; computes in `dtype` and keeps its weights in float32."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.model = Trunk(shape)
        angles = torch.arange(shape.context)[:, None] * shape.theta ** (
            -torch.arange(0, shape.head_width, 2) / shape.head_width
        )
        self.register_buffer("cosine", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sine", angles.sin().to(dtype), persistent=False)
        self._start()

    def _start(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02 if "embed" in name else parameter.shape[1] ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits for the token after each, (rows, length, vocabulary), in the computing type."""
        length = tokens.shape[1]
        cosine, sine = self.cosine[:length, None], self.sine[:length, None]
        x = F.embedding(tokens, self.model.embed_tokens.weight).to(self.dtype)
        for block in self.model.layers:
            x = block(x, cosine, sine)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight.to(self.dtype))

    def loss(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """The weighted cross-entropy of each token given those before it; `weights` is aligned with `tokens`."""
        logits = self(tokens[:, :-1]).float().flatten(0, 1)
        losses = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        wanted = weights[:, 1:].flatten()
        return (losses * wanted).sum() / wanted.sum()
