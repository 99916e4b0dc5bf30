"""`researcher train RECIPE`: makes a model better at a suite's problems, stage by stage, and goes on when cut off."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from researcher.cli.options import Config, Json, assignments
from researcher.cli.output import Output
from researcher.config import load_settings
from researcher.errors import UserError
from researcher.models.embedded import SHIPPED
from researcher.models.uri import parse_model_uri

if TYPE_CHECKING:
    from researcher.train.course import Course
    from researcher.train.recipe import Recipe

EXTRA = frozenset({"tensorboardX", "torch", "transformers", "safetensors", "gguf", "tokenizers", "numpy"})
SHOWN = {
    "reward": "reward {:.3f}",
    "any_right": "of a group any {:.3f}",
    "held_out/greedy": "held-out {:.3f}",
    "length": "length {:.0f}",
    "entropy": "entropy {:.3f}",
    "informative": "informative {:.0%}",
    "label_accuracy": "labels right {:.0%}",
    "loss": "loss {:.4f}",
    "mismatch": "sampler off by {:.1e}",
    "canary": "canary {:.3g}",
}
"""Of all that is measured, what a line of the console shows; the rest is in metrics.jsonl."""


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe by its name, or a TOML file; an unknown name lists them.")],
    suite: Annotated[
        list[str],
        typer.Option(help="Whose problems to train on: countdown:3, jsonl:PATH, ... as in eval; again for a mix."),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the training; one that is there goes on.")],
    model: Annotated[str | None, typer.Option(help="embedded (the default), gguf:PATH or vllm:DIR")] = None,
    iterations: Annotated[int | None, typer.Option(help="Of each stage of reinforcement learning.")] = None,
    problems: Annotated[
        list[int] | None,
        typer.Option(help="How many problems to train on, at most: of each suite, in their order.  [default: 1000]"),
    ] = None,
    held_out: Annotated[int, typer.Option(help="How many are for evaluation alone: the first of each suite.")] = 50,
    data: Annotated[Path | None, typer.Option(help="JSONL of conversations or samples to learn from.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The model to learn from: gguf:PATH or embedded.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="STAGE.FIELD=VALUE; again for more.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of problems, and of sampling.")] = 0,
    config: Config = None,
    json: Json = False,
) -> None:
    """Train a model by a recipe; the same command goes on where it was cut off.

    Steps on several GPUs, or processes: accelerate launch --num_processes N -m researcher train RECIPE ...
    """
    if _followed():
        return
    settings = load_settings(config, flags={} if model is None else {"model": model})
    counts = problems or [1000]
    bounded = [*(("problems", count, 1) for count in counts), ("held-out", held_out, 0), ("iterations", iterations, 1)]
    for name, value, least in bounded:
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: give {least} or more.")
    if len(counts) not in (1, len(suite)):
        raise UserError(f"--problems is given {len(counts)} times and --suite {len(suite)}: give one for each, or one.")
    output = Output(json=json)
    chosen = _recipe(recipe, iterations, assignments(setting or ()))
    course = _course(
        chosen,
        out,
        weights_of(settings.model or "embedded"),
        suites=suite,
        problems=counts if len(counts) == len(suite) else counts * len(suite),
        held_out=held_out,
        data=data,
        teacher=None if teacher is None else weights_of(teacher),
        seed=seed,
    )
    output.note(f"{chosen.name}: {chosen.about}")
    made = _run(partial(course.run, partial(tell, output)))
    output.line({"model": str(made)})
    output.data(f"written: {made}; researcher run --model {'vllm' if made.is_dir() else 'gguf'}:{made}")


def _run(work: Callable[[], Awaitable[Path]]) -> Path:
    """What the work makes, its steps shared with the other processes of a launch."""
    from researcher.train.parallel import open_team

    with open_team(os.environ):
        return anyio.run(work)


def _followed() -> bool:
    """Whether this was one of several processes that take a share of each step, and has now done so."""
    if os.environ.get("RANK", "0") == "0":
        return False
    from researcher.train.parallel import follow, open_team

    with open_team(os.environ) as team:
        if team is not None:
            follow(team)
    return team is not None


def weights_of(uri: str) -> Path:
    """The GGUF file, or the transformers folder, that the URI names. Raises UserError for weights that are not here."""
    parsed = parse_model_uri(uri)
    if parsed.kind == "embedded":
        return SHIPPED
    if parsed.kind not in ("gguf", "vllm"):
        raise UserError(f"--model {uri}: training wants weights that are here: embedded, gguf:PATH or vllm:DIR.")
    path = Path(parsed.target).expanduser()
    if parsed.kind == "vllm":
        if not path.is_dir():
            raise UserError(f"there is no directory {path}; training wants the model's folder (hf download NAME).")
        return path.resolve()
    if not path.is_file():
        raise UserError(f"there is no model file {path}; check the path after gguf:")
    return path


def tell(output: Output, record: Mapping[str, Any]) -> None:
    """One line about an iteration, the beginning or the end of a stage."""
    output.line(record)
    stage = record["stage"]
    if "iteration" in record:
        shown = [text.format(record[name]) for name, text in SHOWN.items() if name in record]
        seconds = sum(value for name, value in record.items() if name.startswith("seconds/"))
        took = [f"{seconds:.1f} s"] if seconds else []
        output.note("  ".join([f"{stage} {record['iteration']}/{record['of']}", *shown, *took]))
        for finding in record.get("findings", ()):
            output.note(f"{stage}: {finding}")
    elif "server" in record:
        output.note(f"{stage}: {record['server']}")
    elif "begins" in record:
        output.note(f"{stage} ({record['begins']}) begins with {record['from']}")
    elif "done" in record:
        figures = [f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, (int, float))]
        before = " before" if record["done"] == "before" else ""
        output.note("  ".join([f"{stage} is done{before}", *figures]))


def _recipe(name: str, iterations: int | None, changes: dict[str, Any]) -> Recipe:
    """The checked recipe, with the changes of the command line. Raises UserError where the extra is missing."""
    try:
        from researcher.train.recipe import load_recipe
        from researcher.train.stages.rl import ReinforcementStage
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRA:
            raise UserError(
                f"Training needs {error.name}, which is not installed: pip install 'researcher-orchestrator[train]'."
            ) from None
        raise
    found = load_recipe(name, changes)
    if iterations is None:
        return found
    learning = [stage for stage, made in found.stages.items() if isinstance(made, ReinforcementStage)]
    if not learning:
        raise UserError(f"--iterations: {found.name} has no stage of reinforcement learning; see --set.")
    return load_recipe(name, {**{f"{stage}.iterations": iterations for stage in learning}, **changes})


def _course(
    recipe: Recipe,
    out: Path,
    base: Path,
    *,
    suites: Sequence[str],
    problems: Sequence[int],
    held_out: int,
    data: Path | None,
    teacher: Path | None,
    seed: int,
) -> Course:
    from researcher.evals.split import mixed, split
    from researcher.evals.suites import open_suite
    from researcher.train.course import Course
    from researcher.train.files import checksum

    if data is not None and not data.is_file():
        raise UserError(f"--data {data}: there is no such file.")
    opened = [open_suite(suite) for suite in suites]
    tasks = mixed([split(suite, count, held_out) for suite, count in zip(opened, problems, strict=True)])
    said = {
        "model": f"sha256 {checksum(base)[:12]}",
        "teacher": None if teacher is None else f"sha256 {checksum(teacher)[:12]}",
        "suite": ", ".join(suite.name for suite in opened),
        "problems": len(tasks.train),
        "held_out": held_out,
        "data": None if data is None else f"sha256 {checksum(data)[:12]}",
    }
    return Course(
        recipe=recipe,
        folder=out,
        base=base,
        tasks=tasks.train,
        held_out=tasks.held_out,
        texts=tasks.texts,
        given=data,
        teacher=teacher,
        seed=seed,
        said=said,
    )
