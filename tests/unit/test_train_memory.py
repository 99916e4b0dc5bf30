"""Too little memory: what a step needs, what is free, and what is said; and the precision of its matrix products."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from researcher.errors import UserError
from researcher.train import memory
from researcher.train.batch import Batch
from researcher.train.checkpoint import latest, save
from researcher.train.losses import LossConfig
from researcher.train.memory import Cost, check, free_bytes, measured
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample
from researcher.train.trainer import Trainer, TrainerConfig
from tests.unit.train_team import model, samples

torch.set_num_threads(1)


def long(tokens: int) -> Batch:
    ids = tuple(i * 7 % 48 for i in range(tokens))
    return Batch.of([Sample(run="r", thread="x", task="t", ids=ids, mask=(False,) * (tokens - 1) + (True,))])


def kept(policy: LanguagePolicy, batch: Batch) -> int:
    """Bytes that autograd saves of a real row."""
    own = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    seen: dict[int, Any] = {}

    def save_(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    [row] = policy.rows(batch)
    with torch.autograd.graph.saved_tensors_hooks(save_, lambda tensor: tensor):
        scored = policy.score_row(row, batch, entropy=True)
    assert scored.logprobs.requires_grad
    return sum(storage.nbytes() for storage in seen.values())


@pytest.mark.parametrize("tokens", [100, 250])
def test_two_short_rows_tell_what_a_long_one_keeps(tokens: int) -> None:
    policy = LanguagePolicy(model(), tokens=4096)
    reckoned = Cost(0.0, *measured(policy)).row(tokens)
    assert reckoned == pytest.approx(kept(policy, long(tokens)), rel=0.2)


def test_measuring_changes_nothing() -> None:
    policy = LanguagePolicy(model())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measured(policy)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in policy.model.parameters())


def test_what_is_said_to_fit_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = LanguagePolicy(model(), tokens=4096), Batch.of(samples(0) + samples(1))
    parameters = list(policy.model.parameters())
    row = max(len(row.ids) for row in policy.rows(batch))
    cost = Cost(12.0 * sum(p.numel() for p in parameters), *measured(policy), 48)
    free = int((cost.of(row) + cost.of(60)) / 2)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    with pytest.raises(UserError) as caught:
        check(policy, parameters, batch)
    said = re.search(r"row_tokens = (\d+)", str(caught.value))
    assert said is not None, caught.value
    assert row > int(said[1]) >= 46  # the longest sample
    check(LanguagePolicy(policy.model, tokens=int(said[1])), parameters, batch)
    with pytest.raises(UserError, match=f"a row of {row} tokens"):
        Trainer(policy, TrainerConfig()).learn(batch)


@pytest.mark.parametrize(
    ("free", "said"),
    [(0.05, "a smaller model"), (0.3, "LoRA adapters"), (0.98, "LoRA adapters instead of all weights")],
)
def test_other_ways_out(monkeypatch: pytest.MonkeyPatch, free: float, said: str) -> None:
    """One short sample, so that the states are what does not fit."""
    policy, batch = LanguagePolicy(model()), long(4)
    parameters = list(policy.model.parameters())
    cost = Cost(12.0 * sum(p.numel() for p in parameters), *measured(policy), 48)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(cost.of(4) * free))
    with pytest.raises(UserError, match=said):
        check(policy, parameters, batch)
    if free > 0.9:
        check(policy, parameters, batch, began=True)


def test_what_is_free_is_the_machines_or_the_groups(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert free_bytes(cpu, tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   8 kB\n")
    assert free_bytes(cpu, tmp_path) == 8192
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("3000\n")
    assert free_bytes(cpu, tmp_path) == 8192
    (group / "memory.max").write_text("5000\n")
    (group / "memory.stat").write_text("anon 2000\nfile 500\n")
    assert free_bytes(cpu, tmp_path) == 2500


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
     RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")],
)  # fmt: skip
def test_running_out_of_memory_in_a_step_is_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    trainer = Trainer(LanguagePolicy(model(), tokens=64), TrainerConfig(rate=1e-3))
    score, calls = trainer.policy.score_row, 0

    def fails(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise error
        return score(*args, **options)

    trainer.fits = True
    monkeypatch.setattr(trainer.policy, "score_row", fails)
    with pytest.raises(UserError, match=r"step 1 ran out of memory on cpu with rows of 64 tokens.*row_tokens"):
        trainer.update(samples(0) + samples(1))
    assert trainer.steps == 0
    assert all(p.grad is None for p in trainer.parameters)


def test_another_fault_in_a_step_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(LanguagePolicy(model()), TrainerConfig())
    monkeypatch.setattr(trainer, "fits", True)
    monkeypatch.setattr(trainer.policy, "score_row", lambda *args, **options: (_ for _ in ()).throw(RuntimeError("x")))
    with pytest.raises(RuntimeError, match=r"^x$"):
        trainer.update(samples(0))


def half(dtype: Any, **changes: Any) -> TrainerConfig:
    return TrainerConfig(
        **{"rate": 1e-3, "dtype": dtype, "loss": LossConfig.preset("grpo"), "minibatches": 2, **changes}
    )


def test_a_step_in_bfloat16_is_loosely_that_in_float32() -> None:
    told = {}
    for dtype in ("float32", "bfloat16"):
        trainer = Trainer(LanguagePolicy(model()), half(dtype, minibatches=1, loss=LossConfig.preset("dapo")))
        told[dtype] = (trainer.update(samples(0))[0], [p.detach().clone() for p in trainer.parameters])
        assert all(p.dtype is torch.float32 for p in trainer.parameters)
    full, low = told["float32"][0], told["bfloat16"][0]
    assert low["gradient"] == pytest.approx(full["gradient"], rel=0.1)
    assert low["entropy"] == pytest.approx(full["entropy"], rel=0.02)
    assert low["gradient"] != full["gradient"]


def test_a_resume_in_bfloat16_is_the_same_to_the_bit(tmp_path: Path) -> None:
    whole = Trainer(LanguagePolicy(model()), half("bfloat16"))
    for seed in range(3):
        whole.update(samples(seed))
    first = Trainer(LanguagePolicy(model()), half("bfloat16"))
    first.update(samples(0))
    save(tmp_path, first.steps, first.state())
    second, state = Trainer(LanguagePolicy(model(5)), half("bfloat16")), latest(tmp_path)
    assert state is not None
    second.load_state(state)
    for seed in (1, 2):
        second.update(samples(seed))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, second.parameters, strict=True))
