"""What it brings to let the first of many siblings go first: `python -m benchmarks.prefix MODEL [--siblings 16]`.

Siblings share a long prefix that the server has not seen. In one variant they are sent together; in the other the
rest waits for the first one's first token, when the prefix is in the server's cache. Figures: prompt tokens that the
server took from its cache, and seconds until the last sibling has its 16 tokens; medians, the variants take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from typing import NamedTuple

from researcher.models.uri import open_model
from researcher.protocols import Model, Progress
from researcher.types import Message, ModelRequest, Sampling


class Round(NamedTuple):
    """One round of one variant."""

    prompt: int
    cached: int
    seconds: float


async def siblings(model: Model, words: str, count: int, *, first: bool) -> Round:
    """Sample `count` continuations of a conversation; `first`: the others wait for the first one's first token."""
    cached = prompt = 0
    go = asyncio.Event()
    began = asyncio.get_running_loop().time()

    async def one(number: int) -> None:
        nonlocal cached, prompt
        if first and number:
            await go.wait()
        progress = Progress(on_delta=None if number else lambda _: go.set())
        sampling = Sampling(temperature=1.0, max_tokens=16, seed=number)
        request = ModelRequest(
            messages=(Message(role="user", content=words),), sampling=sampling, raw=True, stream=True
        )
        try:
            usage = (await model.complete(request, progress)).usage
        finally:
            go.set()
        if usage is not None:
            cached, prompt = cached + usage.cached_tokens, prompt + usage.prompt_tokens

    await asyncio.gather(*(one(number) for number in range(count)))
    return Round(prompt, cached, asyncio.get_running_loop().time() - began)


async def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="embedded, gguf:PATH, vllm:NAME or a URL")
    parser.add_argument("--siblings", type=int, default=16)
    parser.add_argument("--words", type=int, default=400, help="words of the shared prefix")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds: dict[bool, list[Round]] = {False: [], True: []}
    async with open_model(options.model) as model:
        await model.capabilities()
        for number in range(options.rounds):
            for first in rounds:
                rng = random.Random(2 * number + first)
                words = " ".join(str(rng.randrange(1000)) for _ in range(options.words))
                rounds[first].append(await siblings(model, words, options.siblings, first=first))
    for first, found in rounds.items():
        name = "the first goes first" if first else "all together"
        share = sum(each.cached for each in found) / sum(each.prompt for each in found)
        seconds = statistics.median(each.seconds for each in found)
        prompt = found[0].prompt // options.siblings
        print(f"{name}: {options.siblings} siblings of {prompt} tokens, {share:.0%} from the cache, {seconds:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
