"""When a vote is over, and which combinations of stops and weights can keep what they promise."""

from __future__ import annotations

from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import Field, model_validator

from researcher.errors import UserError
from researcher.strategies.base import Parameters
from researcher.strategies.deepconf import Measure
from researcher.strategies.votes import Ballots, Tally, beta_confidence

T = TypeVar("T")

Stop = Literal["full", "lossless", "beta", "consensus"]
Weights = Literal["none", "score", "confidence", "evidence"]
STOPS: dict[Weights, tuple[Stop, ...]] = {
    "none": ("lossless", "full", "beta", "consensus"),
    "score": ("lossless", "full", "consensus"),  # a score is 1 at most; the Beta rule counts votes
    "confidence": ("full", "consensus"),  # a confidence has no bound
    "evidence": ("lossless", "full", "consensus"),  # a share is 1 at most
}
"""The stops that keep their promise with these weights, the default first."""

CHAIN = "chain_of_thought"


class Decision(NamedTuple, Generic[T]):
    """Why a vote is over, on which votes, and whether the budget kept it from some that could have changed it."""

    reason: str
    votes: Tally[T]
    limited: bool


class VoteRules(Parameters):
    """The parameters of a vote, checked, and the rules that end it."""

    n: int = Field(default=16, ge=1, le=100_000, description="votes: threads, or runs of `over`")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="sampling temperature")
    stop: Stop | None = Field(
        default=None,
        description="when to stop early: full (never), lossless (when nothing can change the winner), beta (adaptive "
        "consistency) or consensus (DeepConf); without a choice lossless where the weights have a bound, else full",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="for stop=beta (Aggarwal et al. 2023: 0.95)")
    consensus: float = Field(
        default=0.95, gt=0.5, le=1.0, description="for stop=consensus: the leader's share (DeepConf: 0.95)"
    )
    weights: Weights = Field(
        default="none",
        description="what a vote weighs: none (1), score, confidence (DeepConf), or evidence, the share of its quotes "
        "that stand in what was read",
    )
    scorer: str = Field(default="", description="for weights=score: the verifier that scores each answer")
    measure: Measure | None = Field(
        default=None,
        description="for weights=confidence: mean, tail, bottom or lowest; offline tail, online lowest (DeepConf)",
    )
    keep: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="for weights=confidence: the most confident share that votes; offline 0.1 (DeepConf)",
    )
    window: int = Field(default=2048, ge=1, description="tokens of a confidence group (DeepConf: 2048)")
    online: Literal["off", "low", "high"] = Field(
        default="off", description="DeepConf's stop of weak threads as they write: low lets 10 % through, high 90 %"
    )
    warmup: int = Field(
        default=16, ge=1, description="threads that set the floor; votes before a consensus counts, online: threads"
    )
    over: str = Field(default=CHAIN, description="the strategy whose runs vote")
    over_params: dict[str, Any] = Field(default={}, description="its parameters")

    @model_validator(mode="after")
    def _keeps_its_promises(self) -> Self:
        if (why := self._misfit()) is not None:
            raise UserError(f"Strategy vote: {why}.")
        return self

    def _misfit(self) -> str | None:
        """Which parameters do not go together."""
        stops = ", ".join(f"stop={stop}" for stop in STOPS[self.weights])
        if self.stop is not None and self.stop not in STOPS[self.weights]:
            return f"stop={self.stop} cannot keep what it promises with weights={self.weights}; give {stops}"
        if (self.weights == "score") is not bool(self.scorer):
            return "weights=score and a scorer go together: give both (scorer=judge, orm, prm, ...) or none"
        if self.over != CHAIN and self.weights != "none":
            return f"runs of {self.over} have no score, confidence or quotes of their own; give weights=none"
        if self.weights != "confidence" and (self.online != "off" or self.keep is not None or self.measure is not None):
            return "online, keep and measure belong to weights=confidence"
        if self.weights == "confidence" and self.online == "off":
            if self.stop == "consensus" and self.share < 1:
                return "which threads are the most confident is known when all have ended; give stop=full or keep=1"
        elif self.online != "off":
            return self._misfit_online()
        return None

    def _misfit_online(self) -> str | None:
        if self.keep is not None or self.measure not in (None, "lowest"):
            return "online stops threads below a floor of their lowest group; keep and measure belong to online=off"
        if self.n <= self.warmup:
            return f"online needs threads after its {self.warmup} warm-up threads; give a larger n or a smaller warmup"
        return None

    @property
    def stopping(self) -> Stop:
        """When it stops."""
        return self.stop or STOPS[self.weights][0]

    @property
    def share(self) -> float:
        """The share of the threads that votes, by their confidence."""
        default = 0.1 if self.weights == "confidence" and self.online == "off" else 1.0
        return self.keep if self.keep is not None else default

    def rule(self, prefix: Tally[Any]) -> bool:
        """Whether the votes so far, one after the other as they were submitted, are enough."""
        if self.stopping == "beta":
            first, second = prefix.top_two
            return beta_confidence(int(first), int(second)) >= self.confidence
        least = (
            self.warmup if self.online == "off" else 1
        )  # online the warm-up counts its threads, few of which may vote
        return self.stopping == "consensus" and prefix.votes >= least and prefix.share >= self.consensus

    def decide(self, ballots: Ballots[T], *, spendable: bool) -> Decision[T] | None:
        """Whether the vote is over; None while it is not."""
        missing = max(0, self.n - ballots.opened)
        pending = ballots.pending + (missing if spendable else 0)
        if ballots.stopped:
            return Decision(self._why, ballots.prefix, limited=False)
        lossless = self.stopping == "lossless"
        if pending == 0 or (lossless and ballots.tally.decided(pending)):
            decided = lossless and ballots.tally.decided(ballots.pending + missing)
            reason = f"the {self._counted(pending)} left cannot change the winner"
            if not pending:
                reason = f"the vote of {self._counted(ballots.opened)} is complete"
            return Decision(reason, ballots.tally, limited=missing > 0 and not spendable and not decided)
        return None

    def _counted(self, number: int) -> str:
        noun = f"{number} {'thread' if self.over == CHAIN else 'run'}{'' if number == 1 else 's'}"
        return noun if self.over == CHAIN else f"{noun} of {self.over}"

    @property
    def _why(self) -> str:
        if self.stopping == "beta":
            return f"the leader stays ahead with probability {self.confidence:g} or more"
        return f"the leader has {self.consensus:.0%} of the votes or more"
