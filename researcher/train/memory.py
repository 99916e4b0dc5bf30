"""Whether a step fits into memory, asked before the first one: `check(policy, parameters, row, began=False)`.

What a row keeps for the way back is measured and not reckoned from the model's shape: two short rows are computed, and
what autograd saves of them beyond the weights is a L + b L^2 in their length L. To it come the vocabulary's logits, of
which a policy keeps a bounded number, and the gradients and AdamW's two moments, 4 and 8 bytes for each weight that is
trained; the weights themselves are there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from researcher.errors import UserError
from researcher.train.batch import Batch

if TYPE_CHECKING:
    from researcher.train.policy import LanguagePolicy

SHORT = 32
"""Tokens of the shorter row that is measured; the other has twice as many."""
LOGITS = 2**25
"""Logits of a row that are kept at most, in numbers: a policy computes more of them again on the way back."""
ROOM = 1.15
"""For what a step holds besides: the gradients of activations, buffers of libraries."""
GIB = 2**30


class Cost(NamedTuple):
    """What a step needs, in bytes, beyond the weights: a row of L tokens `linear` L + `square` L^2, and its logits."""

    states: float
    linear: float
    square: float
    vocabulary: int = 0

    def of(self, tokens: int) -> float:
        """All of it, with a row of so many tokens."""
        return ROOM * (self.states + self.row(tokens))

    def row(self, tokens: int) -> float:
        """What the row keeps."""
        logits = 8.0 * min(tokens * self.vocabulary, LOGITS)  # and their gradient
        return self.linear * tokens + self.square * tokens**2 + logits

    def longest(self, free: float) -> int:
        """The longest row that fits."""
        low, high = 0, 2**24
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.of(middle) <= free else (low, middle - 1)
        return low


def check(policy: LanguagePolicy, parameters: Sequence[Tensor], batch: Batch, *, began: bool = False) -> None:
    """Raise UserError, with what would fit, where a step on the batch needs more memory than is free.

    `began`: the optimiser has its moments already.
    """
    free = free_bytes(policy.device)
    if free is None:
        return
    row = max(len(row.ids) for row in policy.rows(batch))
    sample = int(torch.bincount(batch.sequence).max())
    states = sum(p.numel() for p in parameters) * (4.0 if began else 12.0)
    cost = Cost(states, *measured(policy), int(getattr(policy.model.config, "vocab_size", 0)))
    if cost.of(row) > free:
        raise UserError(_refusal(policy, cost, free, row, sample))


def measured(policy: LanguagePolicy) -> tuple[float, float]:
    """Bytes that a row keeps for the way back, by its length and by the square of it."""
    short, long = (_kept(policy, tokens) for tokens in (SHORT, 2 * SHORT))
    square = max(0.0, (long - 2 * short) / (2 * SHORT**2))
    return max(0.0, short / SHORT - square * SHORT), square


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """What can still be had on the device; None where nobody says. On the CPU what the machine has and what the
    process's control group leaves of it, whichever is less."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    found = []
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit, used = (_read(root / "sys/fs/cgroup" / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdecimal() and used.isdecimal():
        cached = [
            line.split()[1] for line in _read(root / "sys/fs/cgroup/memory.stat").splitlines() if line[:5] == "file "
        ]
        found.append(int(limit) - int(used) + int(cached[0] if cached else 0))
    return min(found) if found else None


@contextmanager
def told(policy: LanguagePolicy, step: int) -> Iterator[None]:
    """Running out of memory inside is a UserError of one sentence."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "allocate memory" not in str(error):  # how torch says it on the CPU
            raise
        policy.model.zero_grad(set_to_none=True)
        raise UserError(
            f"step {step} ran out of memory on {policy.device} with rows of {policy.tokens} tokens, and nothing was "
            "changed; give fewer row_tokens, dtype bfloat16, or LoRA adapters instead of all weights."
        ) from None


def _kept(policy: LanguagePolicy, tokens: int) -> int:
    """Bytes of what autograd saves of one row beyond the model's own tensors."""
    own = {p.untyped_storage().data_ptr() for p in (*policy.model.parameters(), *policy.model.buffers())}
    seen: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    at = torch.arange(tokens)
    batch = Batch(
        ids=torch.zeros(tokens, dtype=torch.int64), position=at, sequence=torch.zeros(tokens, dtype=torch.int64),
        mask=at == tokens - 1, temperature=torch.ones(1), labels=torch.ones(tokens),
    )  # fmt: skip
    devices = [policy.device] if policy.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        [row] = policy.rows(batch)
        scored = policy.score_row(row, batch, entropy=True)  # held until all that it saved was seen
        del scored
    return sum(seen.values())


def _refusal(policy: LanguagePolicy, cost: Cost, free: float, row: int, sample: int) -> str:
    most = cost.longest(free)
    fits = []
    if most >= sample:
        fits.append(f"row_tokens = {most if most < 256 else most // 256 * 256}")
    if policy.dtype is torch.float32 and cost._replace(linear=cost.linear / 2).of(row) <= free:
        fits.append("dtype = bfloat16")
    if cost._replace(states=cost.states / 50).of(row) <= free:
        fits.append("LoRA adapters instead of all weights")
    if not fits and 0 < most < sample:
        fits.append(f"samples of at most {most} tokens (the longest has {sample})")
    would = (
        "; what would fit: " + ", or ".join(fits) if fits else "; a smaller model, or a machine with more, is needed"
    )
    return (
        f"a step needs about {cost.of(row) / GIB:.3g} GiB more ({cost.states / GIB:.3g} for gradients and AdamW, "
        f"{cost.row(row) / GIB:.3g} for a row of {row} tokens), and {policy.device} has {free / GIB:.3g}{would}."
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
