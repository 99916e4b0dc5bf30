"""Rewards by rule on one sample: accuracy, format, language, scores of a scorer or of steps."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from pydantic import Field, field_validator

from researcher.train.rewards.base import RewardParameters, judged
from researcher.train.sample import Sample
from researcher.types import FinishReason, VerdictStatus

_R1 = re.compile(r"\s*<think>(?P<thought>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_SCRIPTS = {
    "en": ("LATIN",), "de": ("LATIN",), "fr": ("LATIN",), "es": ("LATIN",), "ru": ("CYRILLIC",), "el": ("GREEK",),
    "ar": ("ARABIC",), "he": ("HEBREW",), "hi": ("DEVANAGARI",), "th": ("THAI",), "ko": ("HANGUL",),
    "zh": ("CJK",), "ja": ("HIRAGANA", "KATAKANA", "CJK"),
}  # fmt: skip


class Accuracy(RewardParameters):
    """1 where the task's verifier says right, 0 where wrong or without an answer; silent where it could not judge.

    `truncated`: of a reply that ran into its limit without an answer. As `wrong` it teaches to end early; `silent` is
    DAPO's overlong filtering (Yu et al. 2025, section 3.4), but for the baseline, which leaves it out too.
    """

    right: float = 1.0
    wrong: float = 0.0
    truncated: Literal["wrong", "silent"] = "wrong"

    def __call__(self, group: Sequence[Sample]) -> list[float | None]:
        return [self._one(sample) for sample in group]

    def _one(self, sample: Sample) -> float | None:
        if self.truncated == "silent" and sample.finish is FinishReason.LENGTH and sample.answer is None:
            return None
        right = judged(sample)
        return None if right is None else self.right if right else self.wrong


class Coin(RewardParameters):
    """A coin thrown for each text: 1 with probability `p`, whatever it says.

    The control of a climb: what rises under it did not rise because of what is right (Shao et al. 2025).
    """

    p: float = Field(default=0.5, gt=0.0, lt=1.0)
    seed: int = 0

    def __call__(self, group: Sequence[Sample]) -> list[float]:
        return [float(self._thrown(sample.ids) < self.p) for sample in group]

    def _thrown(self, ids: Sequence[int]) -> float:
        digest = hashlib.blake2b(array("q", (self.seed, *ids)).tobytes(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64


class Format(RewardParameters):
    """1 for `<think>...</think><answer>...</answer>` and nothing else, each tag once (R1); the thought may come apart
    where the server parses it. A reply that ran into its limit has no format."""

    thought: Literal["required", "optional"] = "required"

    def __call__(self, group: Sequence[Sample]) -> list[float]:
        return [float(self._holds(sample)) for sample in group]

    def _holds(self, sample: Sample) -> bool:
        if sample.finish is FinishReason.LENGTH:
            return False
        whole = f"<think>{sample.thought}</think>{sample.text}" if sample.thought else sample.text
        if self.thought == "optional" and "<think>" not in whole:
            whole = f"<think>-</think>{whole}"
        match = _R1.fullmatch(whole)
        if match is None or len(_TAG.findall(whole)) != 4:
            return False
        return bool(match["thought"].strip()) and bool(match["answer"].strip())


class Language(RewardParameters):
    """The share of words of the thought in the target language's script (R1, stage two); 1 for a thought without words.

    A script is not a language: German in an English thought is not seen. Numbers, symbols and single letters of
    formulas are no words.
    """

    target: str = Field(default="en", description=f"one of {', '.join(sorted(_SCRIPTS))}")

    @field_validator("target")
    @classmethod
    def _known(cls, target: str) -> str:
        if target not in _SCRIPTS:
            raise ValueError(f"a language of {', '.join(sorted(_SCRIPTS))}")
        return target

    def __call__(self, group: Sequence[Sample]) -> list[float]:
        scripts = _SCRIPTS[self.target]
        return [_share(sample.thought or sample.text, scripts) for sample in group]


def _share(text: str, scripts: tuple[str, ...]) -> float:
    runs = ["".join(letters) for of_word, letters in groupby(text, _in_word) if of_word]
    words = [word for word in runs if len(word) > 1 or unicodedata.name(word, "").startswith("CJK")]
    if not words:
        return 1.0
    return sum(all(unicodedata.name(c, "").startswith(scripts) for c in word if c.isalpha()) for word in words) / len(
        words
    )


def _in_word(character: str) -> bool:
    """A letter, or a mark on one: a vowel of Hindi or Thai."""
    return unicodedata.category(character)[0] in "LM"


class Score(RewardParameters):
    """A score in [0, 1] for what cannot be verified: of a judge with a rubric, or a reward model; silent without one.

    `of`: the work's `scorer`, the task's `verifier`, or whichever gave one, the scorer first.
    """

    of: Literal["scorer", "verifier", "either"] = "either"

    def __call__(self, group: Sequence[Sample]) -> list[float | None]:
        return [self._one(sample) for sample in group]

    def _one(self, sample: Sample) -> float | None:
        verifier = None if sample.verdict in (None, VerdictStatus.UNVERIFIED) else sample.judged
        if self.of == "verifier":
            return verifier
        return verifier if sample.score is None and self.of == "either" else sample.score


class Process(RewardParameters):
    """The scores of the steps as one: the least, their product, mean, or the last; silent without scored steps."""

    aggregate: Literal["min", "prod", "mean", "last"] = "min"

    def __call__(self, group: Sequence[Sample]) -> list[float | None]:
        return [self._one(sample.steps) for sample in group]

    def _one(self, steps: Sequence[float]) -> float | None:
        if not steps:
            return None
        if self.aggregate == "min":
            return min(steps)
        if self.aggregate == "last":
            return steps[-1]
        if self.aggregate == "mean":
            return sum(steps) / len(steps)
        product = 1.0
        for step in steps:
            product *= step
        return product
