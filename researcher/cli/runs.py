"""Finds a run by what a person types: its id, the beginning of one, or `last`."""

from __future__ import annotations

from pathlib import Path

from researcher.errors import UserError
from researcher.store import run_path

SHOWN = 4


def find_run(home: Path, name: str) -> Path:
    """The file of the run. Raises UserError for none, or for a beginning that several runs share."""
    wanted = run_path(home, name)
    if wanted.is_file():
        return wanted
    # Names begin with the time they were made, so the last by name is the last made.
    paths = sorted(wanted.parent.glob("*.db"))
    if not paths:
        raise UserError(f"there are no runs in {home}; `researcher run` makes one, --home names another folder")
    if name == "last":
        return paths[-1]
    found = [path for path in paths if path.stem.startswith(name)]
    if not found:
        raise UserError(f"there is no run {name!r} in {home}; `researcher ls` lists the runs there are")
    if len(found) > 1:
        shown = ", ".join(path.stem for path in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        raise UserError(f"{name!r} is the beginning of {len(found)} runs ({shown}); type more of it")
    return found[0]
