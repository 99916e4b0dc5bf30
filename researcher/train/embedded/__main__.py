"""The recipe's commands: `python -m researcher.train.embedded COMMAND`, of which `--help` tells."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

SHIPPED = Path(__file__).parents[2] / "models" / "weights" / "reasoner.gguf"


def _train(args: argparse.Namespace) -> None:
    from tokenizers import Tokenizer
    from torch.multiprocessing.spawn import spawn

    from researcher.train.embedded import tokenizer
    from researcher.train.embedded.convert import read_gguf
    from researcher.train.embedded.model import Shape
    from researcher.train.embedded.train import Plan, train, train_rank

    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "tokenizer.json"
    if not kept.exists():
        made = tokenizer.build() if args.new_tokenizer else read_gguf(SHIPPED).tokenizer
        made.save(str(kept))
    start = args.start_at or time.time()
    end = args.end_at or start + 60 * args.minutes
    plan = Plan(folder, start, end, seed=args.seed, threads=args.threads, batch_tokens=args.batch, init=args.init)
    if args.init:  # what is there already would be lost at the rates of a fresh run
        plan = replace(plan, muon_rate=0.013, adam_rate=0.0025, stable=0.2)
    if args.ranks == 1:
        train(plan, Tokenizer.from_file(str(kept)), Shape())
        return
    children = spawn(train_rank, (args.ranks, plan, kept), args.ranks, join=False)  # type: ignore[no-untyped-call]
    while children and not children.join():
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


def _average(args: argparse.Namespace) -> None:
    from researcher.train.embedded import convert

    shares = [(float(share), Path(path)) for share, _, path in (part.partition(":") for part in args.parts)]
    convert.write_gguf(args.out, convert.averaged([(share, convert.read_gguf(path)) for share, path in shares]))


def _export(args: argparse.Namespace) -> None:
    from researcher.train.embedded import convert

    convert.export_hf(args.gguf, args.out)


def _world(args: argparse.Namespace) -> None:
    from researcher.train.embedded.tasks.demo import write_world

    for question in write_world(args.seed, args.out, args.documents):
        print(f"{question['question']} -> {question['answer']}")


def _evaluate(args: argparse.Namespace) -> None:
    from researcher.train.embedded import data
    from researcher.train.embedded.evaluate import greedy, rank, vote
    from researcher.train.embedded.served import serve

    skills = args.skills or data.SKILLS
    with serve(args.gguf, slots=args.slots, threads=args.threads) as served:
        for skill in skills:
            if args.rank:
                print(json.dumps(rank(served, skill, args.count)._asdict()), flush=True)
                continue
            if args.samples:
                print(json.dumps(vote(served, skill, args.count, args.samples, args.temperature)._asdict()), flush=True)
                continue
            score, outcomes, examples = greedy(served, skill, args.count, foreign=args.foreign, seed=args.seed)
            print(
                json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in score._asdict().items()}),
                flush=True,
            )
            wrong = [(e, o) for e, o in zip(examples, outcomes, strict=True) if not o.correct][: args.show]
            for example, outcome in wrong:
                print(f"--- right: {example.answer}")
                for message in outcome.messages[1:]:
                    calls = [call["function"]["arguments"] for call in message.get("tool_calls") or []]
                    print(message["role"], message.get("reasoning_content", ""), message.get("content", ""), *calls)


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
    train.add_argument("--init", type=Path, help="begin with the weights of this GGUF, at lower rates")
    train.add_argument("--new-tokenizer", action="store_true", help="learn one anew, not the shipped one's")
    train.set_defaults(run=_train)
    convert = commands.add_parser("convert", help="a checkpoint or a transformers folder -> GGUF")
    convert.add_argument("source", type=Path)
    convert.add_argument("--out", type=Path, default=SHIPPED)
    convert.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: beside the checkpoint)")
    convert.add_argument("--mean", action="store_true", help="take the averaged weights")
    convert.set_defaults(run=_convert)
    average = commands.add_parser("average", help="the weighted mean of models that began with the same weights")
    average.add_argument("parts", nargs="+", metavar="SHARE:GGUF")
    average.add_argument("--out", type=Path, required=True)
    average.set_defaults(run=_average)
    export = commands.add_parser("export-hf", help="GGUF -> a folder for transformers and vLLM, without torch")
    export.add_argument("--gguf", type=Path, default=SHIPPED)
    export.add_argument("--out", type=Path, required=True)
    export.set_defaults(run=_export)
    evaluate = commands.add_parser("evaluate", help="held-out accuracy under llama.cpp, one JSON line a skill")
    evaluate.add_argument("--gguf", type=Path, default=SHIPPED)
    evaluate.add_argument("--skills", nargs="*")
    evaluate.add_argument("--count", type=int, default=300)
    evaluate.add_argument("--samples", type=int, default=0, help="vote of so many samples instead of greedy")
    evaluate.add_argument("--temperature", type=float, default=0.8)
    evaluate.add_argument("--seed", type=int, default=7_000_003, help="of the problems (greedy)")
    evaluate.add_argument("--foreign", action="store_true", help="worlds with foreign names, phrases and documents")
    evaluate.add_argument("--rank", action="store_true", help="accuracy and area under the curve of one-token verdicts")
    evaluate.add_argument("--slots", type=int, default=16)
    evaluate.add_argument("--threads", type=int, default=1)
    evaluate.add_argument("--show", type=int, default=0, help="print so many wrong conversations of each skill")
    evaluate.set_defaults(run=_evaluate)
    world = commands.add_parser("world", help="a folder of documents with held-out names, and questions.jsonl")
    world.add_argument("--seed", type=int, default=1)
    world.add_argument("--documents", type=int, default=24)
    world.add_argument("--out", type=Path, required=True)
    world.set_defaults(run=_world)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
