"""`play(frames, show)` shows frames with the pauses they had, scaled and capped; without a call to anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from researcher.errors import UserError
from researcher.replay.frames import Frame

LONGEST_PAUSE = 2.0
"""Seconds; a run that waited an hour for a server does not replay for an hour."""


def play(
    frames: Iterable[Frame],
    show: Callable[[Frame], None],
    *,
    speed: float | None = 1.0,
    longest: float = LONGEST_PAUSE,
    sleep: Callable[[float], None] = time.sleep,
) -> Frame | None:
    """Show each frame, and give the last one. `speed` 2 is twice as fast as it was; None does not pause at all."""
    if speed is not None and not speed > 0:
        raise UserError(f"--speed must be greater than 0 (it is {speed:g}); --instant plays without pauses")
    last: Frame | None = None
    for frame in frames:
        if speed is not None and last is not None and frame.after > 0:
            sleep(min(frame.after / speed, longest))
        show(frame)
        last = frame
    return last
