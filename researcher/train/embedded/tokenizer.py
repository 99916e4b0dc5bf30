"""The tokenizer: byte-level BPE of 1,024 tokens in which digits and the syllables of names are single tokens.

The first merges are laid down by hand (consonant and vowel; then the same after a space), so that a name is
always the same few syllables and copying it is copying them. The rest is learned from the words of the
templates, never across two symbols that can stand side by side inside a name.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from researcher.train.embedded.chat import SPECIAL_TOKENS, text_of
from researcher.train.embedded.tasks.names import CONSONANTS, VOWELS

VOCABULARY = 1024
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is cut before merging: Qwen2's expression, which llama.cpp knows as `qwen2`."""

Pair = tuple[str, str]


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b if b in plain else next(spare)) for b in range(256)]


def syllable_merges() -> list[Pair]:
    """Consonant + vowel, then either after a space."""
    pairs: list[Pair] = [(c, v) for c in CONSONANTS + CONSONANTS.upper() for v in VOWELS]
    return [*pairs, *(("Ġ", c + v) for c, v in pairs)]


def learn_merges(words: Counter[str], count: int) -> list[Pair]:
    """The next merges for these pre-cut words (byte alphabet), most frequent pair first."""
    merges: list[Pair] = []
    splits = {word: apply(list(word), syllable_merges()) for word in words}
    known = {a + b for a, b in syllable_merges()}
    while len(merges) < count:
        pairs: Counter[Pair] = Counter()
        for word, symbols in splits.items():
            for i, pair in enumerate(itertools.pairwise(symbols)):
                if "".join(pair) not in known and (i == 0 or not _in_names(*pair)):
                    pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        known.add("".join(best))
        splits = {word: apply(symbols, [best]) for word, symbols in splits.items()}
    return merges


def _in_names(left: str, right: str) -> bool:
    """Whether these may stand side by side inside a name, where nothing is to be merged."""
    return bool(re.fullmatch("[a-z][aeiou]", left) and re.fullmatch("[a-z][aeiou]?", right))


def apply(symbols: list[str], merges: Iterable[Pair]) -> list[str]:
    """The symbols after these merges, in order."""
    for a, b in merges:
        i = 0
        while i < len(symbols) - 1:
            if (symbols[i], symbols[i + 1]) == (a, b):
                symbols[i : i + 2] = [a + b]
            i += 1
    return symbols


def template_words() -> Counter[str]:
    """How often each word of the templates occurs in training text; invented names are left out."""
    from researcher.train.embedded import data

    counts: Counter[str] = Counter()
    stream = data.training(seed=0, shard=10**6, stage=0.5)
    known = {"md", *re.findall(r"[a-z]+", _templates().lower())}
    cutter = Tokenizer.from_str(json.dumps(_document([], {})))
    alphabet = byte_alphabet()
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    for _, example in zip(range(3000), stream, strict=False):
        for piece in special.split(text_of(example)):
            for cut, _ in cutter.pre_tokenizer.pre_tokenize_str(piece):
                letters = "".join(c for c in cut if c.isascii() and c.isalpha())
                if not letters or letters.lower() in known:
                    counts[cut] += 1
    assert all(c in alphabet for word in counts for c in word)
    return counts


def _templates() -> str:
    from researcher.strategies import prompts
    from researcher.train.embedded import chat
    from researcher.train.embedded.tasks import arithmetic, countdown, documents, example, kinds, relations, teamwork

    modules = (prompts, chat, arithmetic, countdown, documents, example, kinds, relations, teamwork)
    return " ".join(Path(str(module.__file__)).read_text("utf-8") for module in modules)


def build() -> Tokenizer:
    """The tokenizer, made anew; the same every time."""
    base = byte_alphabet()
    laid = syllable_merges()
    room = VOCABULARY - len(base) - len(laid) - len(SPECIAL_TOKENS)
    merges = [*laid, *learn_merges(template_words(), room)]
    tokens = [*base, *(a + b for a, b in merges)]
    tokens += [f"<|unused_{i}|>" for i in range(VOCABULARY - len(SPECIAL_TOKENS) - len(tokens))]
    return Tokenizer.from_str(json.dumps(_document(merges, {token: i for i, token in enumerate(tokens)})))


def from_parts(tokens: list[str], merges: list[Pair]) -> Tokenizer:
    """The tokenizer from what a GGUF file stores: all tokens by id, specials last, and the merges."""
    plain = tokens[: len(tokens) - len(SPECIAL_TOKENS)]
    assert tuple(tokens[len(plain) :]) == SPECIAL_TOKENS
    return Tokenizer.from_str(json.dumps(_document(merges, {token: i for i, token in enumerate(plain)})))


def merges_of(tokenizer: Tokenizer) -> list[Pair]:
    """The merges in order."""
    return [(a, b) for a, b in json.loads(tokenizer.to_str())["model"]["merges"]]


def tokens_of(tokenizer: Tokenizer) -> list[str]:
    """All tokens by id."""
    by_id = {i: token for token, i in tokenizer.get_vocab(with_added_tokens=True).items()}
    return [by_id[i] for i in range(len(by_id))]


def _document(merges: list[Pair], vocabulary: dict[str, int]) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added(len(vocabulary))),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def _added(start: int) -> Iterator[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i, content in enumerate(SPECIAL_TOKENS):
        # as in Qwen3, only the tokens of the turn itself are special: the others must survive decoding
        yield {"id": start + i, "content": content, "special": i < 3, **flags}
