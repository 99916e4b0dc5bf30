"""Training on the generated stream, from nothing or from a GGUF, by the wall clock: `train(Plan(...))`."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor

from researcher.train.embedded import data
from researcher.train.embedded.chat import segments
from researcher.train.embedded.convert import from_bits, read_gguf
from researcher.train.embedded.model import Reasoner, Shape
from researcher.train.embedded.muon import Muon, computing
from researcher.train.embedded.tasks.example import Example, Skill
from researcher.train.embedded.tasks.lookup import QUESTION
from researcher.train.embedded.tasks.steps import GIVEN_THOUGHT

REST_WEIGHT = 0.1
"""Loss weight of the tokens that the model does not write itself."""

VERDICT_WEIGHTS: dict[Skill, float] = {"judging": 8.0, "process": 8.0, "outcome": 8.0, "value": 4.0, "choose": 6.0}
"""Loss weight of a reply without thought: the whole skill is a token or two a row."""

NUMBER_WEIGHT = 3.0
"""Loss weight of the number of a passage: a token or two that decide what a whole sentence refers to."""

COMPARED_WEIGHT = 4.0
"""Loss weight of how long a compared number is, and of the signs between digits: the comparison hangs on them."""

DECISION_WEIGHT = 5.0
"""Loss weight of the words that decide whether a passage answers a question: where the answer to it begins, and what
comes after `Not there.`"""

_HEAVY = (
    (re.compile(r"(\[\d+\])"), NUMBER_WEIGHT),
    (re.compile(r" \((\d)(?=\)[,:] )|(\d[<=>]\d)"), COMPARED_WEIGHT),
    (re.compile(r"^Q: .*\n(\S+)(?: there\.( \S+))?", re.MULTILINE), DECISION_WEIGHT),
)
"""What weighs more in an answer over documents: the groups of a pattern."""

_EMPTY = re.compile(re.escape(GIVEN_THOUGHT))


@dataclass(frozen=True, slots=True)
class Plan:
    """One run; it ends at `end_at`, by when the learning rate has decayed."""

    folder: Path
    start_at: float
    """Unix seconds at which the schedule begins."""
    end_at: float
    """Unix seconds at which it ends."""
    seed: int = 1
    batch_tokens: int = 8192
    muon_rate: float = 0.02
    adam_rate: float = 0.004
    stable: float = 0.45
    """Share of the time at the full rate; then it falls linearly to `floor`."""
    floor: float = 0.02
    threads: int = 2
    compiled: bool = True
    init: Path | None = None
    """The GGUF whose weights the run begins with."""
    save_every: float = 120.0
    max_steps: int = 10**9
    rank: int = 0
    """Which of `ranks` processes this is; each trains on its own rows and they share their gradients."""
    ranks: int = 1

    def progress(self) -> float:
        """How much of the time has gone, from 0 to 1."""
        return min(1.0, max(0.0, (time.time() - self.start_at) / (self.end_at - self.start_at)))

    def rate(self, step: int, gone: float) -> float:
        """The learning rate as a share of the full one, at this step and share of the time."""
        fall = 1.0 if gone < self.stable else max(self.floor, (1 - gone) / (1 - self.stable))
        return min(1.0, (step + 1) / 60) * fall


class Row:
    """A tokenised example: ids and loss weights of one length."""

    __slots__ = ("ids", "weights")

    def __init__(self, tokenizer: Tokenizer, example: Example) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        parts = list(segments(example.messages, example.tools))
        # joined, not piece by piece, so that the ids are those of the whole text
        text = "".join(text for text, _ in parts)
        encoded = tokenizer.encode(text)
        ends, own = [], []
        end = 0
        for piece, mine in parts:
            end += len(piece)
            ends.append(end)
            own.append(mine)
        spans = list(_spans(example, text))
        bare = not example.messages[-1].get("reasoning_content")
        weight = VERDICT_WEIGHTS.get(example.skill, 1.0) if bare else 1.0
        part = 0
        for token, (start, _) in zip(encoded.ids, encoded.offsets, strict=True):
            while start >= ends[part]:
                part += 1
            self.ids.append(token)
            special = next((w for a, b, w in spans if a <= start < b), weight)
            self.weights.append(special if own[part] else REST_WEIGHT)


def _spans(example: Example, text: str) -> Iterator[tuple[int, int, float]]:
    """Where the model's own tokens have a weight of their own: (start, end, weight)."""
    if example.skill == "judging" or example.skill in data.PUZZLE_SKILLS:
        for match in _EMPTY.finditer(text):  # a server writes this, and only if it is told to
            yield *match.span(), 0.0
    if example.skill == "lookup":
        for match in QUESTION.finditer(text):
            yield *match.span(), REST_WEIGHT
    if example.skill == "lookup" or example.skill in data.DOCUMENT_SKILLS:
        for pattern, weight in _HEAVY:
            for match in pattern.finditer(text):
                for group in range(1, pattern.groups + 1):
                    yield *match.span(group), weight


def batches(tokenizer: Tokenizer, plan: Plan, shard: int, limit: int = 1024) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded batches of rows of like length, without end; the worlds grow with the plan's progress."""
    rng = random.Random(f"batches/{plan.seed}/{shard}")
    while True:
        stage = 1.0 if plan.init else min(1.0, plan.progress() * 5)
        stream = data.training(plan.seed, shard + plan.rank, stage, _mix(plan))
        shard += plan.ranks
        rows = [Row(tokenizer, example) for _, example in zip(range(768), stream, strict=False)]
        rows = sorted((row for row in rows if len(row.ids) <= limit), key=lambda row: len(row.ids))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row.ids) > plan.batch_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield _pad(group)


def _mix(plan: Plan) -> dict[Skill, float] | None:
    """The shares that stand in the folder's `mix.json`, which may be changed while the run goes on."""
    path = plan.folder / "mix.json"
    if not path.exists():
        return None
    shares: dict[Skill, float] = json.loads(path.read_text("utf-8"))
    return shares


def _pad(rows: list[Row]) -> tuple[Tensor, Tensor]:
    length = -(-max(len(row.ids) for row in rows) // 16) * 16 + 1
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for i, row in enumerate(rows):
        tokens[i, : len(row.ids)] = torch.tensor(row.ids)
        weights[i, : len(row.ids)] = torch.tensor(row.weights)
    return tokens, weights


class Run:
    """A model, its optimizers and where it stands."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer, shape: Shape) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.tokenizer = plan, tokenizer
        self.model = Reasoner(shape, computing())
        _kindred(self.model, tokenizer)
        if plan.init:
            self.model.load_state_dict(_weights(plan.init))
        matrices = [p for n, p in self.model.named_parameters() if p.dim() == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.dim() != 2 or "embed" in n]
        self.muon = Muon(matrices, plan.muon_rate)
        self.adam = torch.optim.AdamW(others, plan.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.mean = [p.detach().clone() for p in self.model.parameters()]
        self.step = self.tokens = self.shard = 0
        self.seconds = self.gone = 0.0

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to go on."""
        names = [name for name, _ in self.model.named_parameters()]
        return {
            "shape": self.model.shape.as_dict(),
            "model": self.model.state_dict(),
            "mean": dict(zip(names, self.mean, strict=True)),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "at": {"step": self.step, "tokens": self.tokens, "shard": self.shard, "seconds": self.seconds},
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.mean = list(state["mean"].values())
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        at = state["at"]
        self.step, self.tokens, self.seconds = at["step"], at["tokens"], at["seconds"]
        self.shard = at["shard"] + 1000  # shards in flight when the run stopped are not used again

    def update(self, loss: Tensor) -> None:
        """One step of both optimizers at the rate of the moment."""
        loss.backward()  # type: ignore[no-untyped-call]
        if self.plan.ranks > 1:
            self._share()
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        share = self.plan.rate(self.step, self.gone)
        self.muon.rate = self.plan.muon_rate * share
        self.adam.param_groups[0]["lr"] = self.plan.adam_rate * share
        self.muon.step()
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        keep = min(0.997, self.step / (self.step + 20))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.model.parameters()], 1 - keep)
        self.step += 1

    def tick(self) -> float:
        """Look at the clock: the share of the time that has gone, the same in all processes."""
        gone = torch.tensor([self.plan.progress()], dtype=torch.float64)
        if self.plan.ranks > 1:
            dist.all_reduce(gone, op=dist.ReduceOp.MAX)
        self.gone = float(gone)
        return self.gone

    def _share(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.plan.ranks, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def _weights(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(from_bits(bits)) for name, bits in read_gguf(path).weights.items()}


def _kindred(model: Reasoner, tokenizer: Tokenizer) -> None:
    """Start tokens that differ only in case or a leading space from a common vector, so that names match early."""
    embedding = model.model.embed_tokens.weight
    groups: dict[str, int] = {}
    with torch.no_grad():
        for token, i in tokenizer.get_vocab().items():
            j = groups.setdefault(token.removeprefix("Ġ").lower(), i)
            if j != i:
                embedding[i] = 0.7 * embedding[i] + 0.7 * embedding[j]


def train(plan: Plan, tokenizer: Tokenizer, shape: Shape) -> Run:
    """Train until the plan's end, saving `last.pt` on the way and `final.pt` at the end; resumes from `last.pt`."""
    torch.set_num_threads(plan.threads)
    plan.folder.mkdir(parents=True, exist_ok=True)
    run = Run(plan, tokenizer, shape)
    last = plan.folder / "last.pt"
    if last.exists():
        run.load(last)
    log = (plan.folder / ("log.jsonl" if plan.rank == 0 else f"log.{plan.rank}.jsonl")).open("a")
    log.write(json.dumps({**asdict(plan), "folder": "", "init": bool(plan.init), "at_step": run.step}) + "\n")
    loss_of = torch.compile(run.model.loss, dynamic=True) if plan.compiled else run.model.loss
    stream = batches(tokenizer, plan, run.shard)
    saved = began = time.time()
    before, seconds, total, seen = run.tokens, run.seconds, 0.0, 0
    while run.step < plan.max_steps and run.tick() < 1.0:
        tokens, weights = next(stream)
        torch._dynamo.maybe_mark_dynamic(tokens, (0, 1))
        torch._dynamo.maybe_mark_dynamic(weights, (0, 1))
        loss = loss_of(tokens, weights)
        run.update(loss)
        run.tokens += int((weights > 0).sum()) * plan.ranks
        total, seen = total + float(loss.detach()), seen + 1
        if run.step % 20 == 0:
            now = time.time()
            run.seconds = seconds + now - began
            speed = (run.tokens - before) / (now - began)
            record = {"step": run.step, "tokens": run.tokens, "loss": round(total / seen, 4), "tok/s": round(speed)}
            log.write(
                json.dumps({**record, "rate": round(plan.rate(run.step, run.gone), 4), "seconds": round(run.seconds)})
                + "\n"
            )
            log.flush()
            total, seen = 0.0, 0
            if now - saved > plan.save_every:
                run.shard += 1000
                saved = now
                if plan.rank == 0:
                    _save(run, last)
    if plan.rank == 0:
        _save(run, plan.folder / "final.pt")
    log.close()
    return run


def train_rank(rank: int, ranks: int, plan: Plan, tokenizer: Path) -> None:
    """Train as one of several processes on this machine."""
    if hasattr(os, "sched_setaffinity") and ranks <= len(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})  # else both may wait for the same core
    store = torch.distributed.TCPStore("127.0.0.1", 29517, ranks, rank == 0)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    train(replace(plan, rank=rank, ranks=ranks), Tokenizer.from_file(str(tokenizer)), Shape())


def _save(run: Run, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(run.state(), part)
    part.replace(path)
