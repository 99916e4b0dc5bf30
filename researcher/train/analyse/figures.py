"""The figures of one thought: `figures_of(thought)`. The text itself is not kept, so that large homes can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from researcher.train.analyse.label import Labels, counts, labelled
from researcher.train.analyse.table import Behaviour
from researcher.train.analyse.thoughts import Thought
from researcher.train.rewards.base import judged
from researcher.train.rewards.lengths import repeated
from researcher.types import Frozen

LONG, SHORT = 40, 4
"""Repetition is looked for at two lengths: a 40-gram of tokens that comes again (Yeo et al. 2025), and 4 words."""


class Figures(Frozen, frozen=True, kw_only=True):
    """What is counted of one thought.

    `source`: the folder of its run, as far as it says something; `version`: of the weights that sampled the most of it.
    `tokens`: all that were sampled, None where nobody counted. `looped` of `loopable` tokens (words where ids are not
    known) lie in a 40-gram that came before; `again` of `grams` 4-grams of words came before. `shown`: how many of the
    `units` show each behaviour.
    """

    run: str
    thread: str
    task: str
    source: str = ""
    suite: str = ""
    strategy: str
    model: str = ""
    version: str = ""
    outcome: str = ""
    right: bool | None = None
    cut: bool = False
    tokens: int | None = None
    units: int = 0
    words: int = 0
    looped: int = 0
    loopable: int = 0
    again: int = 0
    grams: int = 0
    second_looks: int = 0
    shown: Mapping[Behaviour, int]


def figures_of(
    thought: Thought, *, source: str = "", suite: str = "", labels: Sequence[Labels] | None = None
) -> Figures:
    """The figures of a thought; `labels` of its units, where somebody else gave them than the patterns."""
    found = labelled(thought.text)
    words = thought.text.split()
    told: Sequence[int] = thought.ids or _numbered(words)
    grams = max(0, len(words) - SHORT + 1)
    return Figures(
        run=thought.run,
        thread=thought.thread,
        task=thought.task,
        source=source,
        suite=suite,
        strategy=thought.strategy,
        model=thought.model,
        version=thought.version,
        outcome="" if thought.outcome is None else thought.outcome.value,
        right=judged(thought),
        cut=thought.cut,
        tokens=thought.tokens,
        units=len(found.units),
        words=len(words),
        looped=repeated(told, LONG),
        loopable=len(told),
        again=grams - len({tuple(words[i : i + SHORT]) for i in range(grams)}),
        grams=grams,
        second_looks=found.second_looks,
        shown=counts(found.labels if labels is None else labels),
    )


def _numbered(words: Sequence[str]) -> list[int]:
    """The words as numbers, equal ones alike."""
    known: dict[str, int] = {}
    return [known.setdefault(word, len(known)) for word in words]
