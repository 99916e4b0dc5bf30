"""A small tokenizer for the test server: words of its vocabulary, single bytes for the rest, special tokens."""

from __future__ import annotations

from collections.abc import Sequence

BYTES = 256
END, SYSTEM, USER, ASSISTANT, TOOL = range(BYTES, BYTES + 5)
"""The end of a turn, and whose turn begins."""
SPECIAL = {END: "<|end|>", SYSTEM: "<|system|>", USER: "<|user|>", ASSISTANT: "<|assistant|>", TOOL: "<|tool|>"}
FIRST_WORD = BYTES + len(SPECIAL)


class Vocabulary:
    """Ids of texts and texts of ids. A word is its id whatever stands around it; the longest word counts."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._bytes: dict[int, bytes] = {i: bytes([i]) for i in range(BYTES)}
        self._bytes |= {i: text.encode() for i, text in SPECIAL.items()}
        self._bytes |= {i: word.encode() for i, word in enumerate(words, FIRST_WORD)}
        self._by_length = sorted(
            ((text, i) for i, text in self._bytes.items() if i >= BYTES), key=lambda each: -len(each[0])
        )

    def ids(self, text: str) -> list[int]:
        """The ids of a text; special tokens in it are recognised."""
        data, ids = text.encode(), []
        while data:
            token = next((i for word, i in self._by_length if data.startswith(word)), data[0])
            ids.append(token)
            data = data[len(self._bytes[token]) :]
        return ids

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """The bytes of these ids, special tokens included."""
        return b"".join(self._bytes[token] for token in ids)

    def text(self, ids: Sequence[int]) -> str:
        """The text of these ids; half a character is U+FFFD."""
        return self.bytes_of(ids).decode("utf-8", "replace")

    def conversation(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The ids of a conversation up to the assistant's next turn."""
        names = {text[2:-2]: i for i, text in SPECIAL.items()}
        ids: list[int] = []
        for message in messages:
            ids += [names[message["role"]], *self.ids(message.get("content") or ""), END]
        return [*ids, ASSISTANT]
