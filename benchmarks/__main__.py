"""All benchmarks, one after the other; `make bench`. Each prints ratios against a floor measured in the same run."""

from __future__ import annotations

import subprocess
import sys

SUITE = {
    "the engine beside a bare aiohttp loop": ["benchmarks.engine"],
    "the model client beside bare aiohttp": ["benchmarks.http"],
    "the event store": ["benchmarks.store"],
    "the thought graph": ["benchmarks.graph"],
}


def main() -> None:
    """Run them in processes of their own, so that none heats the caches of another."""
    for title, command in SUITE.items():
        print(f"\n== {title}", flush=True)
        subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
