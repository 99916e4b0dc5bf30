"""Partial rollouts (Kimi k1.5, section 2.6.2): a fixed output budget for a rollout and iteration, and the rest later.

A group under way is a run that waits. The next iteration goes on in a copy of its log, so that no log that a checkpoint
names is ever written to again: a resume finds each rollout at the very token where the checkpoint left it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio.to_thread
import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from researcher.errors import UserError
from researcher.events import RunFinished, RunStarted
from researcher.store import RunReader, RunStore, new_run_id, run_path
from researcher.strategies.base import Parameters
from researcher.train.sample import Sample
from researcher.types import Outcome

MAX_TOKENS: int = Parameters.model_fields["max_tokens"].default


class PartialConfig(BaseModel):
    """How rollouts are cut into pieces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(ge=1, description="output tokens a rollout may add in an iteration")
    older: Literal["mask", "weigh"] = Field(
        default="mask", description="what older weights sampled of a rollout: context alone, or learned with its weight"
    )
    repeats: int = Field(default=8, ge=0, description="times a rollout may repeat its end before it is stopped; 0: any")

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the strategy `partial`."""
        return {"piece": self.tokens, "repeats": self.repeats}

    def waits(self, params: Mapping[str, Any]) -> int:
        """Iterations from the first piece of a rollout to its last, at the most."""
        return -(-int(params.get("max_tokens", MAX_TOKENS)) // self.tokens) - 1


class Flight(NamedTuple):
    """A group under way: the number of its task, its run, the run's last event, and the pieces its rollouts have."""

    task: int
    run: str
    seq: int
    pieces: int


async def copy_run(home: Path, flight: Flight, params: Mapping[str, Any]) -> str:
    """The id of a new run: the flight's as it was then, to be resumed with these parameters. Raises UserError."""
    with RunReader(run_path(home, flight.run)) as reader:
        events = [event for event in reader.read() if event.seq <= flight.seq]
    if not events or events[-1].seq != flight.seq:
        raise UserError(
            f"The run {flight.run} in {home} has lost its last events, so its rollouts cannot go on; remove the last "
            "checkpoint to begin at the one before."
        )
    run = new_run_id()
    store = await anyio.to_thread.run_sync(lambda: RunStore.create(run_path(home, run), synchronous="normal"))
    try:
        for event in events:
            body = event.body
            if isinstance(body, RunStarted):
                body = msgspec.structs.replace(body, params=dict(params))
            if not isinstance(body, RunFinished):
                store.append(event.thread, body)
    finally:
        await store.aclose()
    return run


def remove_runs(home: Path, runs: Sequence[str]) -> None:
    """Remove runs that others have gone on from: what they hold is in those, too."""
    for run in runs:
        path = run_path(home, run)
        for ending in ("", "-wal", "-shm", ".lock"):
            Path(f"{path}{ending}").unlink(missing_ok=True)


def ended(sample: Sample) -> Sample:
    """The sample of a turn that is over: who ended it without an answer is wrong, as an answer's thread would be."""
    silent = sample.outcome is Outcome.ANSWERED and sample.answer is None
    return msgspec.structs.replace(sample, outcome=Outcome.EXHAUSTED) if silent else sample


def newest(sample: Sample) -> NDArray[np.bool_]:
    """Which tokens the newest weights of a sample sampled, [T]; all that were sampled where nobody knows."""
    mask = np.asarray(sample.mask, dtype=bool)
    if not sample.versions:
        return mask
    last = max(sample.versions, key=lambda span: span.end).version
    for span in sample.versions:
        if span.version != last:
            mask[span.start : span.end] = False
    return mask
