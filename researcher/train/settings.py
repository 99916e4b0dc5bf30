"""What a stage of reinforcement learning is told: `LoopConfig`, whose fields are those of a recipe's stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from researcher.engine.preflight import check_calls
from researcher.errors import UserError
from researcher.strategies.load import load_strategy
from researcher.train.diagnosis import DiagnosisConfig
from researcher.train.partial import PartialConfig
from researcher.train.rewards import RewardConfig
from researcher.train.sampling import SamplingConfig
from researcher.train.trainer import TrainerConfig
from researcher.types import Task

CHAIN = "chain_of_thought"


class LoopConfig(BaseModel):
    """One stage of reinforcement learning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(default=100, ge=1)
    tasks: int = Field(default=16, ge=1, description="groups of an iteration")
    group: int = Field(default=16, ge=2, description="samples of a task")
    strategy: str = Field(default="vote", description="what makes the rollouts")
    params: dict[str, Any] = Field(default={"stop": "full", "temperature": 1.0}, description="parameters of it")
    trained: int | None = Field(default=None, ge=2, description="of a group, those a step is made of (TTRL: 32 of 64)")
    partial: PartialConfig | None = Field(default=None, description="rollouts in pieces over iterations (Kimi k1.5)")
    staleness: int = Field(
        default=0,
        ge=0,
        description="versions by which weights that sampled may be old; from 1 rollouts go on in a step",
    )
    rewards: tuple[RewardConfig, ...] = (RewardConfig(name="accuracy"),)
    begins: dict[str, int] = Field(default={}, description="rewards that count from this iteration on (Kimi: length)")
    trainer: TrainerConfig = TrainerConfig()
    sampling: SamplingConfig = SamplingConfig()
    diagnosis: DiagnosisConfig = DiagnosisConfig()
    evaluate_every: int = Field(default=10, ge=1)
    tensorboard: bool = Field(default=True, description="write the metrics for TensorBoard too")
    seed: int = 0

    @property
    def rollout(self) -> tuple[str, dict[str, Any]]:
        """The strategy of the rollouts and its parameters."""
        if self.partial is not None:
            # All go to their end, and a rollout in pieces is a chain of thought itself.
            own = {name: value for name, value in self.params.items() if name not in ("stop", "over", "over_params")}
            return "partial", {"n": self.group, **own, **self.asked, **self.partial.params}
        return self.strategy, {"n": self.group, **self.params} if self.strategy == "vote" else dict(self.params)

    @property
    def asked(self) -> dict[str, Any]:
        """How the threads are asked, the style of the prompt say: held-out tasks are asked in the same way."""
        asked: dict[str, Any] = self.params.get("over_params", {})
        return asked if self.params.get("over", CHAIN) == CHAIN else {}

    @property
    def bound(self) -> int:
        """Versions by which a sample may be old, waiting for its siblings included."""
        return self.staleness + (0 if self.partial is None else self.partial.waits(self.params))

    def refuse(self, tasks: Sequence[Task] = ()) -> None:
        """Raises UserError, in a sentence, for what cannot be done together, or not on these tasks."""
        strategy = load_strategy(*self.rollout)
        if self.partial is not None and any(task.tools for task in tasks):
            raise UserError("Partial rollouts are single turns, and these tasks want tools: leave out partial.")
        for task in {task.tools: task for task in tasks}.values():
            check_calls(self.strategy, strategy, task)
        what = "partial rollouts" if self.partial is not None else f"staleness = {self.staleness}"
        if self.bound and not self.trainer.loss.reads_sampler:
            raise UserError(
                f"With {what} older weights sample what is learned from, which needs a correction: set "
                "trainer.loss.mismatch.mode to truncate or mask."
            )
        if self.partial is not None and self.strategy != "vote":
            raise UserError(f"Partial rollouts are single turns, so they cannot be made by {self.strategy}.")
