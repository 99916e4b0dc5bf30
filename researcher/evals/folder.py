"""The folder of an evaluation: what was asked for (`config.json`), every result, and what was made of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from researcher.errors import UserError
from researcher.evals.record import Result, read_results

GROWS = ("count", "seeds", "budgets", "strategies")
"""What may become more in a folder that has results already; all else must stay what it was."""


class Shard(NamedTuple):
    """One of several processes that share an evaluation: every `of`-th problem, from the `number`-th on."""

    number: int = 1
    of: int = 1


WHOLE = Shard()


class Folder:
    """Where an evaluation writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self, shard: Shard = WHOLE) -> Path:
        """The file of this shard's results, one line for each run."""
        return self.path / ("results.jsonl" if shard.of == 1 else f"results-{shard.number}-of-{shard.of}.jsonl")

    def claim(self, config: Mapping[str, Any]) -> None:
        """Make the folder this evaluation's, or see that it is. Raises UserError where another one's results are there.

        More problems, seeds, budgets and strategies are added to those that are there.
        """
        file = self.path / "config.json"
        before = self._config(file)
        for name, value in config.items():
            if before is not None and name not in GROWS and before.get(name, value) != value:
                raise UserError(
                    f"{self.path} holds an evaluation with another {name} ({_short(before.get(name))}, not "
                    f"{_short(value)}); choose a new folder with --out, or leave --out away."
                )
        strategies = {**(before or {}).get("strategies", {})}
        for label, described in config["strategies"].items():
            if strategies.setdefault(label, described) != described:
                raise UserError(
                    f"{self.path} has results of {label} with {_change(strategies[label], described)}; give this one a "
                    f"name of its own ({label}2={described['strategy']}), or choose a new folder with --out."
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**config, "strategies": strategies}, indent=1, ensure_ascii=False) + "\n"
            fresh = self.path / f".config-{os.getpid()}.json"
            fresh.write_text(text, "utf-8")
            fresh.replace(file)  # whole at every moment: other shards read it
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); choose another --out.") from None

    def _config(self, file: Path) -> dict[str, Any] | None:
        if not file.exists():
            if any(self.path.glob("results*.jsonl")):
                raise UserError(f"{self.path} has results but no config.json that says of what; choose a new --out.")
            return None
        try:
            config = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); choose a new --out.") from None
        if not isinstance(config, dict) or not isinstance(config.get("strategies"), dict):
            raise UserError(f"{file} is not the configuration of an evaluation; choose a new --out.")
        return config

    def read(self) -> list[Result]:
        """The results that are there, of all shards."""
        return [result for path in sorted(self.path.glob("results*.jsonl")) for result in read_results(path)]

    def write(self, name: str, text: str) -> Path:
        """Write a file beside the results; its path."""
        path = self.path / name
        path.write_text(text, "utf-8")
        return path


def default_folder(home: Path, config: Mapping[str, Any]) -> Path:
    """The folder of this configuration: the same command finds it again, a changed one gets another."""
    fixed = {name: value for name, value in config.items() if name not in ("count", "seeds", "budgets")}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]
    suite = "".join(char if char.isalnum() or char in "-." else "-" for char in str(config["suite"]))[:60]
    return home / "evals" / f"{suite}-{digest}"


def selected(results: Iterable[Result], keys: Iterable[object]) -> list[Result]:
    """The results of these runs, in their order, of a run that was tried again the one to trust."""
    found: dict[object, Result] = {}
    for result in results:
        if result.key not in found or not result.broken:
            found[result.key] = result
    return [found[key] for key in keys if key in found]


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first parameter that differs, as it was."""
    if before["strategy"] != now["strategy"]:
        return f"strategy {before['strategy']}"
    was, wanted = before["params"], now["params"]
    name = next(key for key in {**was, **wanted} if was.get(key) != wanted.get(key))
    return f"{name} = {_short(was.get(name))}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
