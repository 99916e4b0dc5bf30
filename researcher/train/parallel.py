"""Processes that compute a step together: `accelerate launch --num_processes 2 -m researcher train ...`.

Rank 0 runs the recipe, samples, and alone writes. The others `follow`: they are given each trainer and its batches, and
compute their share of the rows. A step's denominators are those of the whole batch, which all have, so the sum of the
processes' gradients is the gradient of the step, and every process moves its copy of the weights by it. accelerate sets
up the processes (gloo on CPUs, NCCL on GPUs) and moves what they say.
"""

from __future__ import annotations

import heapq
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from researcher.errors import UserError
from researcher.train.batch import Batch
from researcher.train.packing import Row, pack

if TYPE_CHECKING:
    from torch.nn import Parameter

    from researcher.train.policy import LanguagePolicy
    from researcher.train.trainer import Metrics, Trainer

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: rollouts take their time; where one dies, the launcher ends all."""


class Team:
    """The processes of a launch, of which this is number `rank` of `size`."""

    def __init__(self, state: Any) -> None:
        self.rank, self.size = int(state.process_index), int(state.num_processes)
        self.device: torch.device = state.device

    def tell(self, message: tuple[str, Any]) -> None:
        """Rank 0 says something to all others; each of them must be in `hear`."""
        if self.rank == 0:
            _broadcast([message])

    def hear(self) -> tuple[str, Any]:
        """What rank 0 says next."""
        heard: list[Any] = [None]
        _broadcast(heard)
        return heard[0]  # type: ignore[no-any-return]

    def rows(self, policy: LanguagePolicy, batch: Batch) -> list[Row]:
        """This process's rows of a batch: together all have each sample once, and about as many tokens each."""
        tokens = sum(len(row.ids) for row in pack(batch, policy.tokens, share=policy.share))
        rows = pack(batch, min(policy.tokens, -(-tokens // self.size)), share=policy.share)
        loads = [(0, rank) for rank in range(self.size)]
        mine = []
        for row in sorted(rows, key=lambda row: -len(row.ids)):
            load, rank = heapq.heappop(loads)
            heapq.heappush(loads, (load + len(row.ids), rank))
            if rank == self.rank:
                mine.append(row)
        return mine

    def add_gradients(self, parameters: Sequence[Parameter]) -> None:
        """Each gradient is now the sum of all processes'."""
        from accelerate.utils import reduce

        empty = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        flat = torch.cat([empty, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
        summed: Any = reduce(flat, "sum")
        at = len(parameters)
        for parameter, used in zip(parameters, summed[:at].tolist(), strict=True):
            found = summed[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()
            parameter.grad = found.clone() if used else None  # without one the optimiser leaves a weight alone

    def gathered(self, value: Any) -> list[Any]:
        """What each process says, by rank."""
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def added(self, *sums: Metrics) -> list[Metrics]:
        """Sums of all processes, by name."""
        found: list[Metrics] = [{} for _ in sums]
        for said in self.gathered(sums):
            for total, more in zip(found, said, strict=True):
                for name, value in more.items():
                    total[name] = total.get(name, 0.0) + value
        return found


TEAM: ContextVar[Team | None] = ContextVar("team", default=None)
"""The team whose steps the trainers of this context make; None: this process alone."""


@contextmanager
def open_team(environment: Mapping[str, str]) -> Iterator[Team | None]:
    """The team that a launcher's environment names, None for a process alone; at a good end the others are let go.

    Raises UserError for numbers of processes that cannot be used.
    """
    size = _number(environment, "WORLD_SIZE")
    if size == 1:
        yield None
        return
    team = Team(_state(environment, size))
    token = TEAM.set(team)
    try:
        yield team
    finally:
        TEAM.reset(token)
    # Not after an error: the others may be in the middle of a step, and the launcher ends them as this process ends.
    team.tell(("end", None))
    torch.distributed.destroy_process_group()


def follow(team: Team) -> Trainer | None:
    """Do the work of a process that is not rank 0, until rank 0 ends; the last trainer, if there was one."""
    from researcher.train.trainer import Trainer

    trainer: Trainer | None = None
    while True:
        match team.hear():
            case "end", _:
                return trainer
            case "open", (kind, model, options, config, reference):
                policy = kind(model.to(team.device), **options)
                other = None if reference is None else kind(reference.to(team.device), **options)
                trainer = Trainer(policy, config, reference=other)
            case "learn", batch:
                assert trainer is not None
                with suppress(FloatingPointError):  # rank 0 has the same, and says so
                    trainer.together(batch)
            case "load", state:
                assert trainer is not None
                trainer.restore(state)


def place(policy: LanguagePolicy, device: torch.device) -> None:
    """The policy computes on this device from now on."""
    if policy.device != device:
        policy.model.to(device)
        policy.device, policy.tiled = device, False  # tiles are for CPUs


def described(trainer: Trainer) -> tuple[Any, ...]:
    """All that another process needs for the same trainer."""
    policy, reference = trainer.policy, trainer.reference
    options = {"tokens": policy.tokens, "dtype": policy.dtype, "share": policy.share}
    return type(policy), policy.model, options, trainer.config, None if reference is None else reference.model


def check_share(team: Team, samples: int) -> None:
    """Raise UserError where a step has fewer samples than there are processes."""
    if samples < team.size:
        raise UserError(
            f"{team.size} processes cannot share a step of {samples} samples; launch with --num_processes {samples} at "
            "most, or make steps of more samples."
        )


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "1") or "1"
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise UserError(f"{name} is {text!r}, which is no number of processes; start with accelerate launch.")
    return int(text)


def _state(environment: Mapping[str, str], size: int) -> Any:
    if importlib.util.find_spec("accelerate") is None:
        raise UserError("Several processes need accelerate: pip install 'researcher-orchestrator[train]'.")
    from accelerate import PartialState

    here = _number(environment, "LOCAL_WORLD_SIZE")
    alone = environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    gpus = 0 if alone else torch.cuda.device_count()
    if gpus and here > gpus:
        raise UserError(
            f"{here} processes on a machine with {gpus} GPU(s): launch with --num_processes {gpus}, or with --cpu."
        )
    try:
        return PartialState(cpu=not gpus, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the {size} processes do not find each other ({' '.join(str(error).split())[:200]})."
        ) from None


def _broadcast(objects: list[Any]) -> None:
    from accelerate.utils import broadcast_object_list

    broadcast_object_list(objects, from_process=0)
