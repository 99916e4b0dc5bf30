"""Token confidence, and stopping a thread while it writes when that falls too low (DeepConf, Fu et al. 2025)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio

from researcher.models.confidence import token_confidence
from researcher.types import Confidence

__all__ = ["Watch", "token_confidence"]


class Watch:
    """Cancels `scope` once the mean confidence of a full window is below the floor."""

    def __init__(self, limit: Confidence, scope: anyio.CancelScope) -> None:
        self._limit, self._scope = limit, scope
        self._window: deque[float] = deque()
        self._sum = 0.0
        self.fell = False

    def see(self, confidences: Sequence[float]) -> None:
        """Take in the next tokens."""
        for value in confidences:
            self._window.append(value)
            self._sum += value
            if len(self._window) > self._limit.window:
                self._sum -= self._window.popleft()
            if len(self._window) == self._limit.window and self._sum / self._limit.window < self._limit.floor:
                self.fell = True
                self._scope.cancel()
                return
