"""Several processes that make one step: two real ones on the CPU, beside one that is alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from researcher.errors import UserError
from researcher.train.batch import Batch
from researcher.train.parallel import Team, check_share, open_team
from researcher.train.policy import LanguagePolicy
from tests.unit import train_team

torch.set_num_threads(1)


class State:
    """Of accelerate's PartialState what a team looks at."""

    def __init__(self, rank: int, size: int) -> None:
        self.process_index, self.num_processes, self.device = rank, size, torch.device("cpu")


@pytest.mark.slow
def test_two_processes_make_the_step_of_one(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, train_team.__file__, str(tmp_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = torch.load(tmp_path / "told.pt")
    alone, metrics, gradients = train_team.learn()
    assert len(told["gradients"]) == len(gradients) == 4
    for ours, wanted in zip(told["gradients"][:1], gradients[:1], strict=True):  # from the same weights
        for mine, theirs in zip(ours, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
        assert max(float(g.abs().max()) for g in ours) > 1e-2
    for mine, theirs in zip(told["metrics"], metrics, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert told["metrics"][0] == pytest.approx(metrics[0], rel=1e-5, abs=1e-5)
    first, second = torch.load(tmp_path / "rank0.pt"), torch.load(tmp_path / "rank1.pt")
    for mine, theirs in zip(first, alone.parameters, strict=True):
        # Adam divides by the gradient's size: where that is nearly 0 its sign is rounding, so the mass must agree.
        assert ((mine - theirs.detach()).abs() > 1e-4).float().mean() < 0.01
    resumed = torch.load(tmp_path / "again.pt")
    assert told["steps"] == 8
    assert all(torch.equal(a, b) for a, b in zip(resumed, second, strict=True))  # what rank 1 has at its end
    assert not all(torch.equal(a, b) for a, b in zip(resumed, first, strict=True))


def test_rows_are_shared_out_once_and_evenly() -> None:
    batch, policy = Batch.of(train_team.samples(0)), LanguagePolicy(train_team.model(), tokens=4096)
    shares = [Team(State(rank, 3)).rows(policy, batch) for rank in range(3)]
    assert sorted(i for rows in shares for row in rows for i in row.samples) == list(range(8))
    tokens = [sum(len(row.ids) for row in rows) for rows in shares]
    assert min(tokens) > 0
    assert max(tokens) <= 46  # the longest sample is never split


def test_one_process_is_no_team() -> None:
    with open_team({}) as team:
        assert team is None
    with open_team({"WORLD_SIZE": "1"}) as team:
        assert team is None


def test_numbers_of_processes_that_cannot_be_used_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="WORLD_SIZE is 'many', which is no number"), open_team({"WORLD_SIZE": "many"}):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(UserError, match=r"2 processes on a machine with 1 GPU.*--num_processes 1, or with --cpu"):
        open_team(environment).__enter__()
    with pytest.raises(UserError, match="4 processes cannot share a step of 3 samples"):
        check_share(Team(State(0, 4)), 3)
