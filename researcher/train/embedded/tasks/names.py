"""Invented names, one tenth of them held out: `is_held_out(word)` is a pure function of the word.

A word is two or three syllables (consonant and vowel) and sometimes a last consonant, so the tokenizer can keep
every syllable whole and copying a name is copying two to four tokens. Training draws only words that are not
held out; evaluation and demo worlds draw only words that are.
"""

from __future__ import annotations

import random
import zlib

CONSONANTS = "bdfghjklmnprstvz"
VOWELS = "aeiou"
FINALS = "nrlstkm"
SYLLABLES = tuple(c + v for c in CONSONANTS for v in VOWELS)


def is_held_out(word: str) -> bool:
    """Whether this word belongs to evaluation, whatever its case."""
    return zlib.crc32(b"held-out/" + word.lower().encode()) % 10 == 0


class Namer:
    """New words for one world, all from one side of the hold-out; some resemble those before them."""

    def __init__(self, rng: random.Random, held_out: bool, similar: float) -> None:
        self._rng = rng
        self._held_out = held_out
        self._similar = similar
        self._used: list[tuple[str, ...]] = []
        self._seen: set[str] = set()

    def word(self) -> str:
        """A capitalised word that this world has not seen."""
        rng = self._rng
        while True:
            if self._used and rng.random() < self._similar:
                parts = list(rng.choice(self._used))
                parts[rng.randrange(len(parts))] = rng.choice(SYLLABLES)
            else:
                parts = [rng.choice(SYLLABLES) for _ in range(2 if rng.random() < 0.75 else 3)]
            last = rng.choice(FINALS) if rng.random() < 0.4 else ""
            word = "".join(parts) + last
            if word not in self._seen and is_held_out(word) == self._held_out:
                self._seen.add(word)
                self._used.append(tuple(parts))
                return word.capitalize()
