"""What each process of `test_train_parallel.py` does: `python -m torch.distributed.run ... train_team.py OUT`."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from researcher.train.losses import LossConfig
from researcher.train.parallel import follow, open_team
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample, Term
from researcher.train.trainer import Metrics, Trainer, TrainerConfig

torch.set_num_threads(1)


def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape = Qwen3Config(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    made = Qwen3ForCausalLM(shape)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6.0)
    return made.eval()


def samples(seed: int) -> list[Sample]:
    """Two groups of unlike lengths, of which one is a single short sample's neighbour."""
    rng, made = random.Random(seed), []
    for group, lengths in enumerate(([3, 40, 5, 8], [4, 4, 21, 2])):
        prompt = [rng.randrange(48) for _ in range(6)]
        for member, length in enumerate(lengths):
            said = [rng.randrange(48) for _ in range(length)]
            made.append(
                Sample(
                    run="r",
                    thread=f"{group}/{member}",
                    task=str(group),
                    ids=(*prompt, *said),
                    mask=(False,) * 6 + (True,) * length,
                    terms=(Term("accuracy", float(member % 2)),),
                )
            )
    return made


CONFIG = TrainerConfig(
    loss=LossConfig.preset("grpo", beta=0.05, entropy=0.01), rate=1e-3, minibatches=2, row_tokens=64, clip=1.0
)


def learn(state: dict[str, Any] | None = None) -> tuple[Trainer, list[Metrics], list[list[torch.Tensor]]]:
    """Two iterations of two steps each: their metrics, and the gradients that each step's optimiser was given."""
    trainer = Trainer(LanguagePolicy(model(), tokens=64), CONFIG, reference=LanguagePolicy(model(1), tokens=64))
    if state is not None:
        trainer.load_state(state)
    gradients: list[list[torch.Tensor]] = []
    descend = trainer._descend

    def watched() -> float:
        gradients.append([p.grad.clone() for p in trainer.parameters if p.grad is not None])
        return descend()

    trainer._descend = watched  # type: ignore[method-assign]
    metrics = [step for seed in range(2) for step in trainer.update(samples(seed))]
    return trainer, metrics, gradients


def main(out: Path) -> None:
    with open_team(os.environ) as team:
        assert team is not None
        if team.rank:
            trainer = follow(team)
            assert trainer is not None
            torch.save([p.detach() for p in trainer.parameters], out / f"rank{team.rank}.pt")
            return
        trainer, metrics, gradients = learn()
        torch.save([p.detach() for p in trainer.parameters], out / "rank0.pt")
        again, _, _ = learn(trainer.state())
        torch.save({"metrics": metrics, "gradients": gradients, "steps": again.steps}, out / "told.pt")
        torch.save([p.detach() for p in again.parameters], out / "again.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
