"""The recipe's commands: `python -m researcher.train.embedded train | convert | export-hf | evaluate | world`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

SHIPPED = Path(__file__).parents[2] / "models" / "weights" / "reasoner.gguf"


def _train(args: argparse.Namespace) -> None:
    import torch
    from tokenizers import Tokenizer

    from researcher.train.embedded import tokenizer
    from researcher.train.embedded.model import Shape
    from researcher.train.embedded.train import Plan, train, train_rank

    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "tokenizer.json"
    if not kept.exists():
        tokenizer.build().save(str(kept))
    start = args.start_at or time.time()
    end = args.end_at or start + 60 * args.minutes
    plan = Plan(folder, start, end, seed=args.seed, threads=args.threads, batch_tokens=args.batch)
    if args.ranks == 1:
        train(plan, Tokenizer.from_file(str(kept)), Shape())
        return
    children = torch.multiprocessing.spawn(train_rank, (args.ranks, plan, kept), args.ranks, join=False)
    while not children.join():
        pass


def _convert(args: argparse.Namespace) -> None:
    from tokenizers import Tokenizer

    from researcher.train.embedded import convert

    source: Path = args.source
    if source.is_dir():
        packed = convert.from_hf(source)
    else:
        made = Tokenizer.from_file(str(args.tokenizer or source.with_name("tokenizer.json")))
        packed = convert.from_checkpoint(source, made, mean=args.mean)
    convert.write_gguf(args.out, packed)


def _export(args: argparse.Namespace) -> None:
    from researcher.train.embedded import convert

    convert.export_hf(args.gguf, args.out)


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
    train.add_argument("--threads", type=int, default=1, help="of each process")
    train.add_argument("--ranks", type=int, default=2, help="processes that share their gradients")
    train.add_argument("--batch", type=int, default=6144, help="tokens of a batch of one process")
    train.set_defaults(run=_train)
    convert = commands.add_parser("convert", help="a checkpoint or a transformers folder -> GGUF")
    convert.add_argument("source", type=Path)
    convert.add_argument("--out", type=Path, default=SHIPPED)
    convert.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: beside the checkpoint)")
    convert.add_argument("--mean", action="store_true", help="take the averaged weights")
    convert.set_defaults(run=_convert)
    export = commands.add_parser("export-hf", help="GGUF -> a folder for transformers and vLLM, without torch")
    export.add_argument("--gguf", type=Path, default=SHIPPED)
    export.add_argument("--out", type=Path, required=True)
    export.set_defaults(run=_export)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
