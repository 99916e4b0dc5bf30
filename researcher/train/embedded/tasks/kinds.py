"""What a world is made of: the kinds of things, their names, and what a relation between them is."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["person", "town", "country", "river", "mountain", "company", "tower", "book"]


COMPARATIVES = frozenset(
    [
        "earlier",
        "later",
        "older",
        "younger",
        "more",
        "fewer",
        "larger",
        "smaller",
        "longer",
        "shorter",
        "higher",
        "lower",
        "taller",
    ]
)


class Contest(NamedTuple):
    """A way to compare two things by a number: `pick` is the side that wins."""

    question: str
    pick: Literal["more", "less"]

    def decide(self, a: tuple[int, str], b: tuple[int, str]) -> str:
        """The comparison in words, step by step: `8850 Musu Mills (4), 8345 Kihet Mills (4): 8=8 8>3; larger 8850 Musu
        Mills, smaller 8345 Kihet Mills; fewer: 8345 Kihet Mills.`

        How long each number is stands there before they are compared: a model of this size that is to see both at once
        guesses. A name follows its number, by which it is copied.
        """
        larger, smaller = (f"{value} {thing}" for value, thing in (max(a, b), min(a, b)))
        word = next(word for word in self.question.replace(",", "").split() if word in COMPARATIVES)
        said = ", ".join(f"{value} {thing} ({len(str(value))})" for value, thing in (a, b))
        answer = larger if self.pick == "more" else smaller
        return f"{said}: {digits(a[0], b[0])}; larger {larger}, smaller {smaller}; {word}: {answer}."


def digits(a: int, b: int) -> str:
    """Two numbers compared from the left up to the first difference: `8=8 8>3`; by length where that differs."""
    x, y = str(a), str(b)
    if len(x) != len(y):
        return f"{len(x)}{'>' if a > b else '<'}{len(y)} digits"
    signs: list[str] = []
    for p, q in zip(x, y, strict=True):
        signs.append(f"{p}{'=' if p == q else '>' if p > q else '<'}{q}")
        if p != q:
            break
    return " ".join(signs)


class Relation(NamedTuple):
    """One relation of a kind of thing to another thing or to a value."""

    key: str
    subject: Kind
    target: str
    """A kind, or the name of a value range in `NUMBERS` or `WORDS`."""
    facts: tuple[str, ...]
    questions: tuple[str, ...]
    phrases: tuple[str, ...]
    """Noun phrases that can stand for the target inside another question."""
    noun: str
    queries: tuple[str, str]
    """Search words beside the name: the first try and the second."""
    contests: tuple[Contest, ...] = ()


NUMBERS: dict[str, tuple[int, int, str]] = {
    "birth": (1700, 1999, ""),
    "year": (1500, 1999, ""),
    "people": (1000, 99999, ""),
    "area": (1000, 99999, " km2"),
    "length": (20, 2400, " km"),
    "height": (400, 8000, " m"),
    "storeys": (15, 320, " m"),
    "workers": (20, 9000, ""),
}
WORDS: dict[str, tuple[str, ...]] = {
    "job": (
        "painter",
        "baker",
        "doctor",
        "teacher",
        "sailor",
        "lawyer",
        "farmer",
        "singer",
        "writer",
        "miner",
        "tailor",
        "judge",
    ),
    "money": ("crown", "mark", "florin", "dinar", "ducat", "peso", "thaler", "shilling", "penny", "guilder"),
    "goods": (
        "glass",
        "paper",
        "clocks",
        "ships",
        "bricks",
        "boots",
        "cheese",
        "lamps",
        "pianos",
        "rope",
        "salt",
        "bells",
    ),
}

KIND_NAMES: dict[Kind, tuple[str, ...]] = {
    "person": ("{} {}",),
    "town": ("{}",),
    "country": ("{}",),
    "river": ("River {}",),
    "mountain": ("Mount {}",),
    "company": ("{} Works", "{} Mills", "{} Bank"),
    "tower": ("{} Tower", "{} Bridge"),
    "book": ("Song of {}", "Road to {}"),
}
FILLERS: dict[Kind, tuple[str, ...]] = {
    "person": ("Little is known of the youth of {x}.", "Many have met {x}."),
    "town": ("{x} is an old town.", "Markets are held in {x}."),
    "country": ("{x} is a country.", "{x} has many roads."),
    "river": ("{x} is a river.", "Fish live in {x}."),
    "mountain": ("{x} is a mountain.", "Snow covers {x}."),
    "company": ("{x} is a company.", "{x} is growing."),
    "tower": ("{x} is a landmark.", "Visitors admire {x}."),
    "book": ("{x} is a book.", "Many have read {x}."),
}
