"""What the generated worlds are made of: eight kinds of things and the relations between them, as phrases."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["person", "town", "country", "river", "mountain", "company", "tower", "book"]


COMPARATIVES = frozenset(
    "earlier later older younger more fewer larger smaller longer shorter higher lower taller".split()
)


class Contest(NamedTuple):
    """A way to compare two things by a number: `pick` is the side that wins."""

    question: str
    pick: Literal["more", "less"]

    def decide(self, a: int, b: int, winner: str) -> str:
        """The comparison in words: `8850 > 8345; fewer: 8345, so Kihet Mills.`"""
        best = max(a, b) if self.pick == "more" else min(a, b)
        word = next(word for word in self.question.replace(",", "").split() if word in COMPARATIVES)
        return f"{a} {'>' if a > b else '<'} {b}; {word}: {best}, so {winner}."


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
    "job": ("painter", "baker", "doctor", "teacher", "sailor", "lawyer", "farmer", "singer", "writer", "miner", "tailor", "judge"),
    "money": ("crown", "mark", "florin", "dinar", "ducat", "peso", "thaler", "shilling", "penny", "guilder"),
    "goods": ("glass", "paper", "clocks", "ships", "bricks", "boots", "cheese", "lamps", "pianos", "rope", "salt", "bells"),
}  # fmt: skip

_R = Relation
RELATIONS: tuple[Relation, ...] = (
    _R("born", "person", "town",
       ("{x} was born in {y}.", "{x} comes from {y}.", "{y} is the birthplace of {x}."),
       ("Where was {x} born?", "In which town was {x} born?", "What is the birthplace of {x}?"),
       ("the town where {x} was born", "the birthplace of {x}"), "birthplace", ("born", "birthplace")),
    _R("birth", "person", "birth",
       ("{x} was born in the year {y}.", "The year of birth of {x} is {y}.", "{x}, born in {y}, is well known."),
       ("In which year was {x} born?", "When was {x} born?"), (), "year of birth", ("born year", "birth"),
       (Contest("Who was born earlier, {a} or {b}?", "less"), Contest("Who was born later, {a} or {b}?", "more"),
        Contest("Who is older, {a} or {b}?", "less"), Contest("Who is younger, {a} or {b}?", "more"))),
    _R("employer", "person", "company",
       ("{x} works for {y}.", "{y} employs {x}.", "{x} has a post at {y}."),
       ("Which company does {x} work for?", "Who employs {x}?"),
       ("the company that employs {x}", "the employer of {x}"), "employer", ("works", "employs")),
    _R("job", "person", "job",
       ("{x} works as a {y}.", "By profession {x} is a {y}.", "{x} earns a living as a {y}."),
       ("What is the profession of {x}?", "What does {x} do for a living?"), (), "profession", ("profession", "works as")),
    _R("spouse", "person", "person",
       ("{x} is married to {y}.", "{y} is the spouse of {x}."),
       ("Who is {x} married to?", "Who is the spouse of {x}?"), ("the spouse of {x}",), "spouse", ("married", "spouse")),
    _R("teacher", "person", "person",
       ("{x} studied under {y}.", "{y} taught {x}.", "{x} was a pupil of {y}."),
       ("Who taught {x}?", "Who was the teacher of {x}?"), ("the teacher of {x}",), "teacher", ("taught", "pupil")),
    _R("country", "town", "country",
       ("{x} lies in {y}.", "{x} is a town in {y}.", "{x} belongs to {y}."),
       ("In which country is {x}?", "Which country does {x} belong to?"), ("the country of {x}",), "country", ("country", "lies in")),
    _R("river", "town", "river",
       ("{y} flows through {x}.", "{x} stands on the banks of {y}.", "{x} lies on {y}."),
       ("Which river flows through {x}?", "On which river does {x} lie?"), ("the river through {x}",), "river", ("river", "flows")),
    _R("mayor", "town", "person",
       ("The mayor of {x} is {y}.", "{y} is mayor of {x}.", "{x} elected {y} as its mayor."),
       ("Who is the mayor of {x}?", "Who is mayor of {x}?"), ("the mayor of {x}",), "mayor", ("mayor", "elected")),
    _R("people", "town", "people",
       ("{x} has {y} inhabitants.", "{y} people live in {x}.", "The population of {x} is {y}."),
       ("How many people live in {x}?", "What is the population of {x}?"), (), "population", ("population", "inhabitants"),
       (Contest("Which has more inhabitants, {a} or {b}?", "more"), Contest("Which has fewer inhabitants, {a} or {b}?", "less"),
        Contest("Which town is larger, {a} or {b}?", "more"))),
    _R("capital", "country", "town",
       ("The capital of {x} is {y}.", "{y} is the capital of {x}.", "{x} is governed from its capital {y}."),
       ("What is the capital of {x}?", "Which town is the capital of {x}?"), ("the capital of {x}",), "capital", ("capital", "governed")),
    _R("ruler", "country", "person",
       ("{x} is ruled by {y}.", "{y} rules {x}.", "The head of state of {x} is {y}."),
       ("Who rules {x}?", "Who is the head of state of {x}?"), ("the ruler of {x}",), "ruler", ("rules", "head of state")),
    _R("money", "country", "money",
       ("The currency of {x} is the {y}.", "In {x} one pays with the {y}."),
       ("What is the currency of {x}?", "Which currency is used in {x}?"), (), "currency", ("currency", "pays")),
    _R("area", "country", "area",
       ("{x} covers {y}.", "The area of {x} is {y}."),
       ("What is the area of {x}?", "How large is {x}?"), (), "area", ("area", "covers"),
       (Contest("Which country is larger, {a} or {b}?", "more"), Contest("Which country is smaller, {a} or {b}?", "less"))),
    _R("length", "river", "length",
       ("{x} is {y} long.", "The length of {x} is {y}.", "{x} runs for {y}."),
       ("How long is {x}?", "What is the length of {x}?"), (), "length", ("long", "length"),
       (Contest("Which is longer, {a} or {b}?", "more"), Contest("Which is shorter, {a} or {b}?", "less"))),
    _R("source", "river", "mountain",
       ("{x} rises on {y}.", "The source of {x} is on {y}.", "{x} springs from {y}."),
       ("On which mountain does {x} rise?", "Where is the source of {x}?"), ("the mountain where {x} rises",), "source", ("rises", "source")),
    _R("height", "mountain", "height",
       ("{x} is {y} high.", "The height of {x} is {y}.", "{x} reaches {y}."),
       ("How high is {x}?", "What is the height of {x}?"), (), "height", ("high", "height"),
       (Contest("Which is higher, {a} or {b}?", "more"), Contest("Which is lower, {a} or {b}?", "less"))),
    _R("stands", "mountain", "country",
       ("{x} stands in {y}.", "{x} is a mountain in {y}.", "{y} is home to {x}."),
       ("In which country is {x}?", "Where does {x} stand?"), ("the country of {x}",), "country", ("country", "stands")),
    _R("climber", "mountain", "person",
       ("{y} was the first to climb {x}.", "{x} was first climbed by {y}."),
       ("Who first climbed {x}?", "Who was the first to climb {x}?"), ("the first climber of {x}",), "first climber", ("climbed", "first")),
    _R("founder", "company", "person",
       ("{x} was founded by {y}.", "{y} founded {x}.", "The founder of {x} is {y}."),
       ("Who founded {x}?", "Who is the founder of {x}?"), ("the founder of {x}",), "founder", ("founded", "founder")),
    _R("since", "company", "year",
       ("{x} has existed since {y}.", "{x} opened in {y}.", "{x} was set up in {y}."),
       ("Since when has {x} existed?", "In which year did {x} open?"), (), "opening year", ("since", "opened"),
       (Contest("Which company is older, {a} or {b}?", "less"), Contest("Which company is younger, {a} or {b}?", "more"))),
    _R("seat", "company", "town",
       ("{x} is based in {y}.", "The head office of {x} is in {y}.", "{x} has its seat in {y}."),
       ("Where is {x} based?", "In which town is the head office of {x}?"), ("the town where {x} is based", "the seat of {x}"), "seat", ("based", "head office")),
    _R("goods", "company", "goods",
       ("{x} makes {y}.", "{x} is known for its {y}.", "{x} produces {y}."),
       ("What does {x} make?", "What does {x} produce?"), (), "product", ("makes", "produces")),
    _R("workers", "company", "workers",
       ("{x} has {y} workers.", "{y} workers have a job at {x}."),
       ("How many workers does {x} have?",), (), "number of workers", ("workers", "job"),
       (Contest("Which has more workers, {a} or {b}?", "more"), Contest("Which has fewer workers, {a} or {b}?", "less"))),
    _R("tall", "tower", "storeys",
       ("{x} is {y} tall.", "The height of {x} is {y}.", "{x} measures {y} from foot to top."),
       ("How tall is {x}?", "What is the height of {x}?"), (), "height", ("tall", "height"),
       (Contest("Which is taller, {a} or {b}?", "more"), Contest("Which is shorter, {a} or {b}?", "less"))),
    _R("architect", "tower", "person",
       ("{x} was designed by {y}.", "{y} designed {x}.", "The architect of {x} is {y}."),
       ("Who designed {x}?", "Who is the architect of {x}?"), ("the architect of {x}",), "architect", ("designed", "architect")),
    _R("site", "tower", "town",
       ("{x} stands in {y}.", "{x} is a landmark of {y}."),
       ("In which town does {x} stand?", "Where is {x}?"), ("the town of {x}",), "town", ("town", "stands")),
    _R("author", "book", "person",
       ("{x} was written by {y}.", "{y} wrote {x}.", "The author of {x} is {y}."),
       ("Who wrote {x}?", "Who is the author of {x}?"), ("the author of {x}",), "author", ("wrote", "author")),
    _R("published", "book", "year",
       ("{x} was published in {y}.", "{x} appeared in {y}."),
       ("When was {x} published?", "In which year did {x} appear?"), (), "year of publication", ("published", "appeared"),
       (Contest("Which book is older, {a} or {b}?", "less"), Contest("Which was published later, {a} or {b}?", "more"))),
    _R("hero", "book", "town",
       ("{x} is set in {y}.", "The story of {x} takes place in {y}."),
       ("Where is {x} set?", "In which town does {x} take place?"), ("the town where {x} is set",), "setting", ("set", "story")),
)  # fmt: skip
BY_SUBJECT: dict[str, list[Relation]] = {}
for _relation in RELATIONS:
    BY_SUBJECT.setdefault(_relation.subject, []).append(_relation)

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
