"""What is going wrong in a training run, said early and in one sentence: `Diagnosis(config).see(metrics)`."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

ACCURACY = "reward/accuracy"
"""The metric that says what share of the samples was right."""
NEAR_THE_TOP = 0.95
"""A mean reward with no room left to rise."""
FALLEN = 0.5
"""Share of the entropy of the beginning below which entropy has fallen."""


class DiagnosisConfig(BaseModel):
    """When to speak up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(default=10, ge=2, description="iterations that are looked at together")
    least_success: float = Field(
        default=0.03, ge=0.0, le=1.0, description="share of right samples below which a climb rarely begins"
    )
    least_informative: float = Field(default=0.05, ge=0.0, description="share of groups whose rewards differ")
    patience: int = Field(default=25, ge=5, description="iterations after which a reward that never rose is named")
    entropy: float = Field(default=0.02, ge=0.0, description="nats a token below which sampling has collapsed")
    mismatch: float = Field(
        default=0.2, gt=0.0, description="mean |log mu - log pi_old| that old weights would explain"
    )


class Finding(str):
    """A sentence for a person; equal findings are said once."""

    __slots__ = ()


class Diagnosis:
    """Looks at each iteration's metrics and says what it sees, each thing once until it has gone away."""

    def __init__(self, config: DiagnosisConfig = DiagnosisConfig()) -> None:
        self._config = config
        self._last: deque[Mapping[str, float]] = deque(maxlen=config.window)
        self._rewards: list[float] = []
        self._entropies: list[float] = []
        self._said: set[str] = set()

    def see(self, metrics: Mapping[str, float]) -> list[Finding]:
        """What is new after this iteration."""
        self._last.append(metrics)
        if (reward := metrics.get(ACCURACY, metrics.get("reward"))) is not None:
            self._rewards.append(reward)
        if "entropy" in metrics:
            self._entropies.append(metrics["entropy"])
        if len(self._last) < self._config.window:
            return []
        found = {name: text for name, text in self._look().items() if text}
        new = [Finding(text) for name, text in found.items() if name not in self._said]
        self._said = set(found)
        return new

    @property
    def hopeless(self) -> bool:
        """Whether going on cannot help: there was no signal to learn from."""
        return "no signal" in self._said

    @property
    def reason(self) -> str:
        """The sentence that says why it is hopeless; empty where it is not."""
        return self._look()["no signal"] if self.hopeless else ""

    def _look(self) -> dict[str, str]:
        config, n = self._config, len(self._last)
        informative, right = self._mean("informative"), self._mean(ACCURACY)
        return {
            "no signal": (
                f"no signal: in the last {n} iterations {informative:.0%} of the groups had rewards that differ, so "
                "the advantages are zero; take easier tasks, a larger group, or train on worked examples first"
                if self._has("informative") and informative <= config.least_informative
                else ""
            ),
            "weak signal": (
                f"weak signal: {right:.1%} of the samples of the last {n} iterations were right, and a climb rarely "
                f"begins below {config.least_success:.0%}; take easier tasks, or train on worked examples first"
                if self._has(ACCURACY) and informative > config.least_informative and right < config.least_success
                else ""
            ),
            "no progress": self._stuck(),
            "entropy": self._collapsed(),
            "mismatch": (
                f"stale or other sampler: its logprobs differ from the trainer's by {self._mean('mismatch'):.2f} nats "
                "a token; check that the weights were published, and the temperature that was sampled with"
                if self._has("mismatch") and self._mean("mismatch") > config.mismatch
                else ""
            ),
            "stale": self._stale(),
            "gradient": (
                f"zero gradient in the last {n} iterations although rewards differ: nothing is learned; check the mask "
                "and the clip"
                if informative > config.least_informative
                and all(m.get("gradient", 1.0) == 0.0 for m in self._last if m.get("informative", 0.0) > 0.0)
                else ""
            ),
        }

    def _collapsed(self) -> str:
        """Whether entropy has fallen to nearly nothing; a model that was certain from the beginning has lost none."""
        now, first = self._mean("entropy"), statistics.fmean(self._entropies[: self._config.window] or [0.0])
        if not self._has("entropy") or now >= min(self._config.entropy, FALLEN * first):
            return ""
        return (
            f"entropy collapse: {now:.3f} nats a token, after {first:.3f} at the beginning; samples of a task are all "
            "alike; raise the upper clip, add an entropy bonus, or go back to an earlier checkpoint"
        )

    def _stale(self) -> str:
        """Whether weights sampled that are older than they may be, by the versions that samples carry."""
        oldest = max((m["staleness/max"] - m.get("staleness/bound", 0.0) for m in self._last if "staleness/max" in m),
                     default=0.0)  # fmt: skip
        dropped, unknown = self._mean("staleness/dropped"), self._mean("staleness/unknown")
        if unknown:
            return (
                f"stale sampler: {unknown:.1f} samples an iteration are of weights that were never published here; "
                "another process changes the server's weights, or it was not restarted with this training"
            )
        if dropped > self._mean("samples"):
            return (
                f"stale sampler: {dropped:.1f} samples an iteration were too old and left out, more than were learned "
                "from; let rollouts be shorter or their pieces longer, or raise the bound"
            )
        if oldest > 0:
            return (
                f"stale sampler: tokens came from weights {oldest:.0f} versions older than they may be; the server did "
                "not take the new weights"
            )
        return ""

    def _stuck(self) -> str:
        """Whether the reward has not risen by more than its own noise, although there is room."""
        rewards = self._rewards
        if len(rewards) < self._config.patience or statistics.fmean(rewards) > NEAR_THE_TOP:
            return ""
        rise, error = trend(rewards)
        if rise > 2.0 * error:
            return ""
        return (
            f"no progress: in {len(rewards)} iterations the reward moved by {rise:+.3f} with a standard "
            f"error of {error:.3f}; check that the reward has to do with what the tokens say, raise the rate, or take "
            "more samples an iteration"
        )

    def _has(self, name: str) -> bool:
        return any(name in metrics for metrics in self._last)

    def _mean(self, name: str) -> float:
        values = [metrics[name] for metrics in self._last if name in metrics]
        return sum(values) / len(values) if values else 0.0


def trend(values: Sequence[float]) -> tuple[float, float]:
    """By how much the values rose from first to last on the line of least squares, and its standard error.

    At least three values. The error is that of the residuals, so nothing need be known of how noisy a value is.
    """
    n = len(values)
    line = statistics.linear_regression(range(n), values)
    squares = math.fsum((value - line.intercept - line.slope * i) ** 2 for i, value in enumerate(values))
    spread = n * (n * n - 1) / 12  # the sum of squares of 0..n-1 about their mean
    return line.slope * (n - 1), math.sqrt(squares / (n - 2) / spread) * (n - 1)
