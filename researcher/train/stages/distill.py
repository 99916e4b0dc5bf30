"""Stage `distill`: the student's own rollouts, each token rewarded by what the teacher would have said.

On-policy distillation (Agarwal et al. 2024; Gu et al. 2024): the gradient of the reverse KL is a policy gradient with
the advantage A_t = log pi_teacher - log pi_student of the token that was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from researcher.errors import UserError
from researcher.train.batch import Batch
from researcher.train.embedded.tokenizer import tokens_of
from researcher.train.policy import LanguagePolicy
from researcher.train.sample import Sample
from researcher.train.stages.base import Bench
from researcher.train.stages.rl import ReinforcementStage
from researcher.train.trainer import Metrics, Trainer
from researcher.train.weights import Weights, load_net, read_weights


class DistillStage(ReinforcementStage):
    """On-policy distillation from the model of --teacher. Leaves `model.gguf` and `metrics.jsonl`, in which
    `teacher_kl` is the reverse KL in nats a token."""

    kind: Literal["distill"] = "distill"  # type: ignore[assignment]

    @property
    def needs_teacher(self) -> bool:
        """It always does."""
        return True

    def _update(self, bench: Bench, trainer: Trainer, weights: Weights) -> Callable[[Sequence[Sample]], list[Metrics]]:
        assert bench.teacher is not None
        teacher = read_weights(bench.teacher)
        if tokens_of(teacher.tokenizer) != tokens_of(weights.tokenizer):
            raise UserError("the teacher has another tokenizer, so its word on the student's tokens means nothing.")
        judge = self._policy(load_net(teacher))
        return lambda samples: distill(trainer, judge, samples)


def distill(trainer: Trainer, teacher: LanguagePolicy, samples: Sequence[Sample]) -> list[Metrics]:
    """One iteration towards the teacher; the metrics of each step, with `teacher_kl`."""
    batch = Batch.of(samples)
    with torch.no_grad():
        wanted, mine = teacher.score(batch).logprobs.cpu(), trainer.policy.score(batch).logprobs.cpu()
    batch.advantages = (wanted - mine) * batch.mask
    gap = -float(batch.advantages.sum() / batch.mask.sum())
    return [{**metrics, "teacher_kl": gap} for metrics in trainer.learn(batch)]
