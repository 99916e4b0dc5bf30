"""Drives an evaluation for a person: opens the model, shows the results as they come, tells what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from researcher.cli.eval_live import Board
from researcher.cli.exits import Exit
from researcher.cli.output import Output
from researcher.evals.folder import Folder, default_folder, selected
from researcher.evals.harness import Evaluation, check, evaluate
from researcher.evals.identity import identity
from researcher.evals.listed import Game24
from researcher.evals.problem import Grader, Suite
from researcher.evals.record import Key, ResultFile
from researcher.evals.report import plain, write_report
from researcher.evals.trial import Bench
from researcher.models.uri import choose_model, open_model
from researcher.protocols import Model


class Job(NamedTuple):
    """An evaluation, the model it is of and where it goes."""

    suite: Suite
    evaluation: Evaluation
    model: str | None
    home: Path
    out: Path | None
    at_once: int
    curves: Sequence[str] = ()
    keep_runs: bool = False


async def drive(job: Job, output: Output) -> Exit:
    """Run what is not there yet and write the report; the exit code."""
    choice = await choose_model(job.model)
    output.note(choice.reason)
    if choice.uri == "embedded" and isinstance(job.suite, Game24) and not job.suite.held_out:
        output.note(f"every second puzzle was open to this model's training; {job.suite.name}:held-out leaves them out")
    config = {"suite": job.suite.name, "model": identity(choice.uri), **job.evaluation.described()}
    folder = Folder(job.out or default_folder(job.home, config))
    keys = [trial.key for trial in job.evaluation.trials()]
    async with open_model(choice.uri) as model:
        await check(job.evaluation, model)
        folder.claim(config)
        interrupted = await _run(job, model, folder, keys, output)
    if job.evaluation.shard.of > 1:
        output.note(f"this shard is done; without --shard the same command writes the report of all, in {folder.path}")
    else:
        _tell(job, folder, config, keys, output)
    if interrupted:
        output.note("interrupted; the same command goes on")
    return Exit.INTERRUPTED if interrupted else Exit.ANSWERED


async def _run(job: Job, model: Model, folder: Folder, keys: Sequence[Key], output: Output) -> bool:
    """Run the trials that are not done, shown as they end; whether a signal stopped it."""
    known = selected(folder.read(), keys)
    done = {result.key for result in known if not result.broken}
    output.note(f"{len(keys):,} runs, {len(done):,} of them done, in {folder.path}")
    board, stop = Board(known, len(keys)), anyio.Event()
    conditions = job.evaluation.conditions._replace(keep=folder.path if job.keep_runs else None)
    grader = Grader(job.suite.verifiers)
    with ResultFile(folder.results(job.evaluation.shard)) as file:
        async with anyio.create_task_group() as group:
            await group.start(board.hear, stop, output)
            group.start_soon(board.watch, output)
            try:
                await evaluate(
                    job.evaluation.trials(),
                    Bench(model, grader, conditions),
                    file,
                    done=done,
                    at_once=job.at_once,
                    seen=board.see,
                    stop=stop,
                )
            finally:
                with anyio.CancelScope(shield=True):
                    await grader.aclose()
            group.cancel_scope.cancel()
    return stop.is_set()


def _tell(job: Job, folder: Folder, config: Mapping[str, Any], keys: Sequence[Key], output: Output) -> None:
    """Write the report and print the table, or a JSON line for each row."""
    results = selected(folder.read(), keys)
    if not results:
        return
    report = write_report(folder, results, config, subsampled=job.curves)
    output.data(report.text)
    for kind, records in (
        ("row", report.rows),
        ("winner", report.best),
        ("curve", report.curves),
        ("saving", report.savings),
    ):
        for record in records:
            output.line({kind: plain(record)})
    for note in report.notes:
        output.note(note)
    for path in report.files:
        output.note(f"written: {path}")
