"""The recipe's commands: `python -m researcher.train.embedded train | convert | export-hf | evaluate | world`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def _train(args: argparse.Namespace) -> None:
    from tokenizers import Tokenizer

    from researcher.train.embedded import tokenizer
    from researcher.train.embedded.model import Shape
    from researcher.train.embedded.train import Plan, train

    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "tokenizer.json"
    if not kept.exists():
        tokenizer.build().save(str(kept))
    start = args.start_at or time.time()
    plan = Plan(folder, start, args.end_at or start + 60 * args.minutes, seed=args.seed, threads=args.threads)
    train(plan, Tokenizer.from_file(str(kept)), Shape())


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m researcher.train.embedded", description=__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train from nothing, or go on from the folder's last checkpoint")
    train.add_argument("--folder", type=Path, default=Path(".train"))
    train.add_argument("--minutes", type=float, default=100.0)
    train.add_argument("--start-at", type=float, help="unix seconds at which the schedule began (to resume)")
    train.add_argument("--end-at", type=float, help="unix seconds at which it ends")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--threads", type=int, default=2)
    train.set_defaults(run=_train)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
