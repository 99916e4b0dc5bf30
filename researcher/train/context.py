"""Whether tokens are the trainer's: `Context.of(tokenizer).why_not(sample)` is a sentence, or "".

Ids mean nothing without the vocabulary and the template that they were made with. A run may record the fingerprint of
both (`settings["tokenizer"]` of its first event); where it did not, the trainer's tokenizer must say of the sampled ids
what the log says was said. Then a template that differs in its marks alone is not noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from researcher.train.sample import Sample


def fingerprint(tokenizer: Any) -> str:
    """16 hex digits of a transformers tokenizer's vocabulary, with its added tokens, and its chat template."""
    return fingerprint_of(tokenizer.get_vocab(), tokenizer.chat_template)


def fingerprint_of(vocabulary: Mapping[str, int], chat_template: str | None) -> str:
    """The same of its parts: ids by their tokens, added ones too, and the template."""
    whole = [sorted(vocabulary.items()), chat_template]
    return blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Context:
    """The model in training: the fingerprint of its tokenizer, how many ids there are, and what ids say.

    `models` and `versions`: the names that may have sampled, of models and of weights; empty for any.
    """

    tokenizer: str
    vocabulary: int
    decode: Callable[[Sequence[int]], str] | None = None
    models: frozenset[str] = frozenset()
    versions: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tokenizer: Any, *, models: Sequence[str] = (), versions: Sequence[str] = ()) -> Context:
        """That of a transformers tokenizer."""
        names = frozenset(models), frozenset(versions)
        return cls(fingerprint(tokenizer), len(tokenizer), tokenizer.decode, *names)

    def why_not(self, sample: Sample) -> str:
        """Why the sample is not to be trained on, in a sentence; "" where nothing speaks against it."""
        which = f"Thread {sample.thread} of run {sample.run}"
        if self.models and sample.model not in self.models:
            return f"{which} was sampled by the model {sample.model!r}, not by {_names(self.models)}."
        stale = sorted({span.version for span in sample.versions} - self.versions) if self.versions else []
        if stale:
            return f"{which} was sampled by the weights {stale[0]!r}, not by {_names(self.versions)}."
        if sample.tokenizer:
            if sample.tokenizer == self.tokenizer:
                return ""
            return (
                f"{which} has the tokens of another tokenizer or chat template ({sample.tokenizer}) than the model in "
                f"training ({self.tokenizer}); train the model that sampled it, or sample again."
            )
        if sample.ids and max(sample.ids) >= self.vocabulary:
            return f"{which} has the token {max(sample.ids)}, and the model in training has {self.vocabulary} alone."
        if self.decode is not None and not self._says(sample, self.decode):
            return f"{which} has tokens that do not say what it said: they are of another tokenizer than the model's."
        return ""

    def _says(self, sample: Sample, decode: Callable[[Sequence[int]], str]) -> bool:
        sampled = [span for span in sample.nodes if sample.mask[span.start]]
        for span, place in zip(sampled, sample.replies, strict=False):
            said = "".join(sample.messages[place].content.split())
            if said not in "".join(decode(sample.ids[span.start : span.end]).split()):
                return False
        return True


def _names(names: frozenset[str]) -> str:
    return " or ".join(map(repr, sorted(names)))
