"""More ways to state and to ask the relations, many with the subject last: `VARIED[kind]`, for foreign worlds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from researcher.train.embedded.tasks import foreign
from researcher.train.embedded.tasks.kinds import NUMBERS, WORDS, Kind, Relation
from researcher.train.embedded.tasks.relations import BY_SUBJECT

_MORE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "born": (
        ("{y} is where {x} was born.", "In {y}, {x} came into the world.", "{y} is the native town of {x}.",
         "{x}, a native of {y}, left early."),
        ("Where does {x} come from?", "Where did {x} come into the world?", "What town is {x} from?"),
    ),
    "birth": (
        ("In {y} {x} was born.", "It was in {y} that {x} was born.", "{x} (born {y})",
         "{x} came into the world in {y}."),
        ("What year was {x} born in?", "In what year did {x} come into the world?"),
    ),
    "employer": (
        ("{y} employs {x}.", "At {y}, {x} has worked for years.", "{x} is on the payroll of {y}.",
         "{y} pays {x} a salary."),
        ("Where does {x} work?", "For whom does {x} work?", "At which company is {x} employed?"),
    ),
    "job": (
        ("{x} is a {y}.", "{x} became a {y}.", "{x}, the {y}, lives quietly.", "A {y} by trade: {x}."),
        ("What is {x}'s job?", "What does {x} work as?", "What kind of work does {x} do?"),
    ),
    "spouse": (
        ("{y} married {x}.", "{y} is {x}'s other half.", "{x} and {y} are a married couple.",
         "{y} and {x} are married."),
        ("Whom did {x} marry?", "Who married {x}?", "Who is {x}'s husband or wife?"),
    ),
    "teacher": (
        ("{y} taught {x}.", "{y} was the teacher of {x}.", "{x} learned everything from {y}.",
         "Lessons with {y} formed {x}."),
        ("With whom did {x} study?", "From whom did {x} learn?", "Whose pupil was {x}?"),
    ),
    "country": (
        ("In {y} lies {x}.", "One town of {y} is {x}.", "{x}, {y}, is reached by train.", "The town of {x} is in {y}."),
        ("Where is {x}?", "What country is {x} in?", "In what country does {x} lie?"),
    ),
    "river": (
        ("{y} flows through {x}.", "{y} passes {x}.", "On {y} stands {x}.", "Through {x} runs {y}."),
        ("What river is {x} on?", "Which river runs through {x}?", "What river passes {x}?"),
    ),
    "mayor": (
        ("{y} is mayor of {x}.", "{y} was elected mayor of {x}.", "{y} runs the town hall of {x}.",
         "In {x}, {y} was chosen as mayor.", "The town hall of {x} is led by {y}, the mayor."),
        ("Who was elected mayor of {x}?", "Who runs the town hall of {x}?", "Who is the current mayor of {x}?"),
    ),
    "people": (
        ("{y} people live in {x}.", "Some {y} people call {x} home.", "With {y} inhabitants {x} is well filled.",
         "{x} (population {y})"),
        ("How many inhabitants does {x} have?", "How many people call {x} home?"),
    ),
    "capital": (
        ("{y} is the capital of {x}.", "{y} is the seat of government of {x}.", "{x} has {y} for a capital."),
        ("Which town is the seat of government of {x}?", "From which town is {x} governed?"),
    ),
    "ruler": (
        ("{y} rules {x}.", "{y} governs {x}.", "{y} has ruled over {x} for years.", "Over {x} rules {y}."),
        ("Who governs {x}?", "Who is in charge of {x}?", "Who is {x} ruled by?"),
    ),
    "money": (
        ("The {y} is the currency of {x}.", "One pays with the {y} in {x}.", "The {y} is used in {x}."),
        ("What money is used in {x}?", "With what does one pay in {x}?"),
    ),
    "area": (
        ("{y} is the area of {x}.", "An area of {y} is covered by {x}.", "{x} measures {y}."),
        ("How big is {x}?", "What area does {x} cover?"),
    ),
    "length": (
        ("Over {y} flows {x}.", "{y} is the length of {x}.", "From source to mouth {x} measures {y}."),
        ("What length has {x}?", "How far does {x} run?"),
    ),
    "source": (
        ("On {y} rises {x}.", "{y} is the source of {x}.", "{y} gives rise to {x}.", "High on {y}, {x} begins."),
        ("Where does {x} rise?", "Where does {x} begin?"),
    ),
    "height": (
        ("At {y}, {x} is a landmark.", "{x} rises to {y}.", "{x} ({y})", "The top of {x} lies at {y}."),
        ("What height does {x} reach?", "How tall is {x}?", "How far up is the top of {x}?"),
    ),
    "stands": (
        ("In {y} stands {x}.", "{y} is home to {x}.", "Among the mountains of {y} is {x}."),
        ("What country is {x} in?", "Where is {x}?"),
    ),
    "climber": (
        ("{y} was the first to climb {x}.", "{y} first climbed {x}.", "Nobody stood on {x} before {y}."),
        ("Who climbed {x} first?", "Who stood first on {x}?"),
    ),
    "founder": (
        ("{y} founded {x}.", "{y} set up {x}.", "{y} started {x} in a shed.", "It was {y} who founded {x}."),
        ("Who set up {x}?", "Who started {x}?", "By whom was {x} founded?"),
    ),
    "since": (
        ("In {y} {x} was set up.", "Since {y} there has been {x}.", "{x}, founded in {y}, is still there."),
        ("When was {x} founded?", "When did {x} open?", "What year was {x} set up?"),
    ),
    "seat": (
        ("In {y} is the head office of {x}.", "{y} is home to {x}.", "{x} of {y} is well known.",
         "From {y}, {x} is run."),
        ("Where is the head office of {x}?", "Where does {x} have its seat?"),
    ),
    "goods": (
        ("{y} are made by {x}.", "{y} from {x} are sold everywhere.", "{x} sells {y}."),
        ("What does {x} sell?", "What is {x} known for?"),
    ),
    "workers": (
        ("{y} people work for {x}.", "{x} employs {y} people.", "{x} gives work to {y}."),
        ("How many people work for {x}?", "How many people does {x} employ?"),
    ),
    "tall": (
        ("At {y}, {x} can be seen from afar.", "{y} is the height of {x}.", "{x} rises {y} into the air."),
        ("How high is {x}?", "What does {x} measure?"),
    ),
    "architect": (
        ("{y} designed {x}.", "{y} drew the plans of {x}.", "{x} is the work of {y}.", "It was {y} who designed {x}."),
        ("Who drew the plans of {x}?", "By whom was {x} designed?"),
    ),
    "site": (
        ("In {y} stands {x}.", "{y} is proud of {x}.", "One sees {x} in {y}."),
        ("Where does {x} stand?", "Which town has {x}?"),
    ),
    "author": (
        ("{y} wrote {x}.", "{y} is the author of {x}.", "{x} is a book by {y}.", "The pen of {y} gave us {x}."),
        ("By whom is {x}?", "Who is {x} by?", "Who was {x} written by?"),
    ),
    "published": (
        ("In {y} appeared {x}.", "{x} ({y})", "{x} came out in {y}.", "It was {y} when {x} came out."),
        ("When did {x} come out?", "What year was {x} published?"),
    ),
    "hero": (
        ("{y} is the setting of {x}.", "In {y} the story of {x} takes place.", "{x} plays in {y}."),
        ("Where does the story of {x} take place?", "Where does {x} play?"),
    ),
}  # fmt: skip


def _generic(templates: Iterable[str], noun: str, what: str = "") -> tuple[str, ...]:
    return tuple(
        template.replace("{noun}", noun).replace("{what}", what or "What")[:1].upper()
        + template.replace("{noun}", noun).replace("{what}", what or "What")[1:]
        for template in templates
    )


def _what(target: str) -> str:
    return "Who" if target == "person" else "What"


def varied(relation: Relation) -> Relation:
    """The relation with more phrases."""
    facts, questions = _MORE[relation.key]
    known = relation.target not in NUMBERS and relation.target not in WORDS
    return relation._replace(
        facts=(*relation.facts, *facts, *facts, *_generic(foreign.FACTS, relation.noun)),
        questions=(
            *relation.questions,
            *relation.questions,
            *questions,
            *_generic(foreign.QUESTIONS, relation.noun, _what(relation.target)),
        ),
        phrases=(*relation.phrases, *_lower(relation.noun)) if known else (),
    )


def _lower(noun: str) -> tuple[str, ...]:
    return tuple(phrase.replace("{noun}", noun) for phrase in foreign.PHRASES)


def opened(noun: str, subject: Kind, target: str) -> Relation:
    """A relation that is only named by its noun; `target` is a kind, `word` or `number`."""
    known = target in get_args(Kind)
    return Relation(
        noun,
        subject,
        target,
        _generic(foreign.FACTS, noun),
        _generic(foreign.QUESTIONS, noun, _what(target)),
        _lower(noun) if known else (),
        noun,
        (noun, f"the {noun} of"),
    )


VARIED: dict[Kind, list[Relation]] = {
    kind: [varied(relation) for relation in relations] for kind, relations in BY_SUBJECT.items()
}
