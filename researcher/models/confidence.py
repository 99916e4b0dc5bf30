"""How sure the model was of a token, from the logprobs of its alternatives (DeepConf, Fu et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

from researcher.types import Alternative


def token_confidence(alternatives: Sequence[Alternative]) -> float:
    """C_t = -(1/k) * the sum of the logprobs (nats) of the k most likely tokens; high where one stands out."""
    return -sum(alternative.logprob for alternative in alternatives) / len(alternatives) if alternatives else 0.0
