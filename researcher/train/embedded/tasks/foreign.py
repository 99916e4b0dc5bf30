"""Names and words unlike the invented syllables: `ForeignNamer(rng, held_out).name("town")`.

Words come from clusters with real-looking endings, from random letters, from English words and from real first
and last names; a name has one to four of them. The hold-out is that of `names.is_held_out`, word by word.
"""

from __future__ import annotations

import random
import re

from researcher.train.embedded.tasks.kinds import Kind
from researcher.train.embedded.tasks.names import SYLLABLES, is_held_out


def _words(text: str) -> list[str]:
    return text.split()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(","))


_ONSETS = (
    _words(
        """
    b br bl c ch cl cr d dr f fl fr g gl gr h j k kl kn kr l m n p ph pl pr qu r rh s sc sch sh sk sl sm sn sp st str sv
    sw sz t th tr tw v w wh y z zh
    """
    )
    + [""] * 8
)
_NUCLEI = _words(
    """
    a e i o u a e i o u a e i o ai au ea ee ei eu ie oa oo ou oe ue y å ä ö é á ó ü í ø
    """
)
_CODAS = [
    "b",
    "ck",
    "d",
    "f",
    "g",
    "k",
    "l",
    "ld",
    "lk",
    "lm",
    "ln",
    "lt",
    "m",
    "mp",
    "n",
    "nd",
    "ng",
    "nk",
    "nt",
    "p",
    "r",
    "rd",
    "rk",
    "rl",
    "rm",
    "rn",
    "rst",
    "rt",
    "s",
    "sk",
    "ss",
    "st",
    "t",
    "th",
    "x",
    "z",
] + [""] * 14
_ENDINGS = _words(
    """
    land lund berg burg burgh ton ham ford stad by wick mouth heim grad ville field wood bridge dale ley worth minster
    holm vik nes fjord ov ova ovo sk insk ice itz au ach ingen hausen dorf kirk caster chester pool bury combe sson sen
    son ski ska wicz ez es ini elli etti ano oni ard eau ier aux ic vic escu opoulos idis yan shvili enko uk ia istan
    aya abad pur nagar shima moto yama zawa ang ong inh wen zhou shan ell ett ine een er el us um is as
    """
)
_ENGLISH = _words(
    """
    amber anchor apple arrow ash autumn badger barley barrow basil beacon bell birch bishop black bloom blue bramble
    bright bronze brook brown candle canyon castle cedar chalk chapel cherry clay cliff clover cobalt cold copper coral
    cotton crane crescent crown crystal dagger dawn deep deer diamond dragon dream drift dusk eagle east echo elder elm
    ember empire falcon fern field fire flint forest fox frost garden ghost glass gold grain granite grass green grey
    grove harbour hare harvest hawk hazel heart heather heron high hill holly honey horn horse hunter ice iron island
    ivory ivy jade jasper juniper kestrel king lake lantern lark laurel leaf light lily lime linden lion long lotus
    maple marble market marsh meadow mercy mill mirror mist moon moor morning moss mountain needle night north oak ocean
    olive orchard otter owl pearl pepper pilot pine plain poplar port prince quarry queen quiet raven red reed ridge
    river robin rock rose ruby sable sage salt sand scarlet shadow sheep shell shore silent silver sky slate smoke snow
    south sparrow spring star steel stone storm stream summer sun swallow swan swift tangle thistle thorn thunder tide
    tiger timber tower valley velvet violet walnut water wave west wheat whisper white wild willow wind winter wolf wren
    yellow
    """
)
_FIRST = _words(
    """
    Aaron Abdul Ada Agnes Ahmed Aisha Akira Alan Albert Alejandro Alice Amara Amy Ana Andrei Angela Anna Antonio Arjun
    Arthur Astrid Barbara Beatrice Ben Bianca Boris Brian Camille Carla Carlos Catherine Chen Chloe Clara Claude Daniel
    David Deepa Diana Diego Dmitri Dora Edith Edward Elena Elif Elizabeth Emil Emily Emma Erik Esther Eva Fatima Felix
    Fiona Francis Frank Freya Gabriel George Giulia Grace Greta Guido Hamid Hannah Hans Harold Hassan Heidi Helen Henry
    Hiro Hugo Ian Ibrahim Ida Igor Ingrid Irene Isaac Isabel Ivan Jack Jacob James Jan Jane Javier Jean Jin Joan John
    Jonas Jorge Joseph Juan Julia Kaito Karen Karl Kate Katya Kenji Kofi Lars Laura Leila Lena Leo Li Liam Linda Lucas
    Lucia Luis Magnus Marco Margaret Maria Mark Martha Martin Mary Matteo Max Mei Michael Miguel Mila Mohammed Nadia
    Naomi Natasha Nicholas Nina Noah Nora Olga Oliver Omar Oscar Otto Pablo Patricia Paul Pedro Peter Petra Philip Priya
    Rachel Rafael Raj Rebecca Richard Robert Rosa Ruth Samuel Sara Sean Sergei Sofia Sophie Stefan Susan Sven Tariq
    Teresa Thomas Tim Tom Ursula Vera Victor Viktor Vincent Wang Wei William Xavier Yara Yuki Yusuf Zara Zoe
    """
)
_LAST = _words(
    """
    Adams Ali Allen Andersson Bailey Baker Becker Bell Bennett Berg Bianchi Brooks Brown Campbell Carter Castro Chang
    Clark Collins Cook Cooper Cruz Davis Diaz Dubois Edwards Eriksen Evans Fischer Flores Foster Garcia Gonzalez Gray
    Green Gupta Hall Hansen Harris Hayes Hill Hoffmann Hughes Ivanov Jackson Jensen Johnson Jones Kang Keller Kelly Khan
    Kim King Klein Kowalski Kumar Larsen Lee Lewis Lopez Martin Meyer Miller Mitchell Moore Morales Morgan Morris Murphy
    Nakamura Nelson Nguyen Novak Okafor Olsen Ortiz Parker Patel Perez Petrov Phillips Popov Powell Price Ramirez Reed
    Reyes Richter Rivera Roberts Robinson Rogers Rossi Russell Sanchez Sanders Sato Schmidt Schneider Scott Shah Silva
    Singh Smith Stewart Sullivan Suzuki Tanaka Taylor Thompson Torres Turner Vargas Vogel Walker Wang Ward Watson Weber
    White Williams Wilson Wood Wright Yamamoto Young Zhang Zimmermann
    """
)
_PEOPLE = (
    *["{f} {l}"] * 12, "{f} {w}", "{w} {l}", "{w} {w}", "{i}. {l}", "{f} {i}. {l}", "{i}. {i}. {l}", "{i}. {i}. {w}",
    "{f} van {w}", "{f} de {w}", "{f} {l}-{w}", "Dr {f} {l}", "{f}", "{f} {f} {l}", "{f} O'{w}", "{f} al-{w}",
)  # fmt: skip
_PLACES: dict[Kind, tuple[str, ...]] = {
    "town": (*["{w}"] * 8, "New {w}", "Port {w}", "San {w}", "{w} upon {w}", "Upper {w}", "{w} City", "{w}-{w}",
        "{e}{s}"),
    "country": (*["{w}"] * 5, "Republic of {w}", "{w} Islands", "Kingdom of {w}", "North {w}", "{w}ia"),
    "river": ("River {w}", "{w} River", "{w}", "Little {w}"),
    "mountain": ("Mount {w}", "{w} Peak", "Piz {w}", "{w} Hill", "{w}horn", "{e} Mountain"),
    "company": ("{w}", "{l} & {l}", "{w} Ltd", "{l} Brothers", "{w} Group", "{e} {e}", "{w} Labs", "{l} and Sons",
        "{e}{s}"),
    "tower": ("{w} Tower", "{w} Bridge", "{w} Hall", "{e} House", "Church of {w}", "{w} Library", "{e} Tower"),
    "book": ("The {e} {e}", "{e} and {e}", "A {e} in {w}", "Song of {w}", "The {e}", "{f}'s {e}", "Letters to {f}"),
}  # fmt: skip
_FIELD = re.compile(r"\{(.)\}")


class ForeignNamer:
    """New names for one world, all of whose words lie on one side of the hold-out; no two alike."""

    def __init__(self, rng: random.Random, held_out: bool, similar: float) -> None:
        self._rng, self._held_out, self._similar = rng, held_out, similar
        self._seen: set[str] = set()
        self._words: list[str] = []

    def name(self, kind: Kind) -> str:
        """A name that this world has not seen."""
        patterns = _PEOPLE if kind == "person" else _PLACES[kind]
        while True:
            pattern = self._rng.choice(patterns)
            name = _FIELD.sub(lambda match: self._part(match[1]), pattern)
            if name.lower() not in self._seen:
                self._seen.add(name.lower())
                return name

    def value(self) -> str:
        """A word or two in lower case that can be the value of anything."""
        words = [self._from(_ENGLISH) for _ in range(1 if self._rng.random() < 0.6 else 2)]
        return " ".join(words)

    def _part(self, code: str) -> str:
        match code:
            case "f":
                return self._from(_FIRST) if self._rng.random() < 0.7 else self.word()
            case "l":
                return self._from(_LAST) if self._rng.random() < 0.5 else self.word()
            case "e":
                return self._from(_ENGLISH).capitalize()
            case "s":
                return self._rng.choice(_ENDINGS[:30])
            case "i":
                return self._rng.choice("ABCDEFGHIJKLMNOPRSTUVWZ")
        return self.word()

    def _from(self, words: list[str]) -> str:
        while True:
            word = self._rng.choice(words)
            if is_held_out(word) == self._held_out:
                return word

    def word(self) -> str:
        """A capitalised word, new or of this world."""
        rng = self._rng
        if self._words and rng.random() < self._similar * 0.4:
            return rng.choice(self._words)
        while True:
            word = self._letters()
            if 3 <= len(word) <= 14 and is_held_out(word) == self._held_out:
                self._words.append(word.capitalize())
                return word.capitalize()

    def _letters(self) -> str:
        rng = self._rng
        form = rng.random()
        if form < 0.55:
            stem = "".join(_syllable(rng) for _ in range(1 if rng.random() < 0.7 else 2))
            return stem + (rng.choice(_ENDINGS) if rng.random() < 0.75 else _syllable(rng))
        if form < 0.7:
            return "".join(rng.choice("aeiouaeiounrstlbcdfghjkmpvwxyzq") for _ in range(rng.randrange(3, 9)))
        if form < 0.8:
            return rng.choice(_ENGLISH)
        if form < 0.9:
            return "".join(rng.choice(SYLLABLES) for _ in range(rng.randrange(1, 4))) + rng.choice(_ENDINGS)
        return rng.choice(_LAST).lower()


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)


NOUNS: dict[str, tuple[str, ...]] = {
    "person": _listed(
        """
        chef, doctor, gardener, librarian, captain, treasurer, secretary, owner, landlord, tutor, neighbour, cousin,
        rival, lawyer, editor, guide, keeper, director, manager, patron, heir, deputy, coach, conductor, organist,
        butler, agent, chairman, president, sheriff, priest, dentist, accountant, assistant, uncle, aunt, brother,
        sister, mother, father, best friend, partner, successor, predecessor, bodyguard, translator, driver, head
        gardener, night watchman, chief engineer
        """
    ),
    "word": _listed(
        """
        motto, colour, flag, anthem, favourite dish, drink, sport, animal, flower, tree, stone, festival, nickname,
        symbol, hobby, instrument, password, main export, speciality, emblem, favourite colour, theme, material,
        favourite food, mascot, style, hat, pet, prize, logo, first product, best seller, school subject, weapon,
        toy, gift, fuel, cargo
        """
    ),
    "number": _listed(
        """
        budget, depth, width, weight, age, room number, number of rooms, number of seats, number of members, phone
        number, postcode, price, number of pages, number of ships, number of schools, number of bridges, score,
        speed, debt, number of floors, capacity, number of cats, house number, prize money, rent, temperature
        """
    ),
    "town": _listed(
        """
        home, place of death, twin town, birthplace of its founder, holiday resort, place of work
        """
    ),
    "company": _listed(
        """
        supplier, main sponsor, biggest customer, parent company, insurer, bank, rival company
        """
    ),
}
"""What anything may have, by the kind of thing that it is; a noun's hold-out is that of a word."""

FACTS = (
    "The {noun} of {x} is {y}.",
    "{x}'s {noun} is {y}.",
    "{y} is the {noun} of {x}.",
    "{y} is {x}'s {noun}.",
    "The {noun} of {x}: {y}.",
    "{x} has {y} as its {noun}.",
    "{noun} of {x}: {y}",
)
"""Phrases that state any relation, its subject first or last."""
QUESTIONS = (
    "{what} is the {noun} of {x}?",
    "{what} is {x}'s {noun}?",
    "Name the {noun} of {x}.",
    "Tell me the {noun} of {x}.",
    "Give {x}'s {noun}.",
    "Find the {noun} of {x}.",
    "I would like to know the {noun} of {x}.",
    "{x}: {noun}?",
    "Do you know the {noun} of {x}?",
    "{what} is the {noun} of {x} according to the documents?",
)
PHRASES = ("the {noun} of {x}", "{x}'s {noun}")
ITEMS = ("{noun}: {y}", "- {noun}: {y}", "{noun} = {y}", "* {noun} - {y}", "{noun} {y};")
"""Lines of a list below the name of its subject."""
LEADS = (
    "As you know, ", "I heard that ", "By the way, ", "Remember that ", "They say that ", "Today we learned that ",
    "It is known that ", "Note: ", "P.S. ", "According to my notes, ", "In the end ", "You asked: ",
)  # fmt: skip
PRONOUNS = ("{p} {noun} is {y}.", "{p} {noun} was {y}.", "{y} is {q} {noun}.", "{p} {noun}: {y}.")
"""Sentences of a document about one thing, which they do not name."""
TAILS = (
    " since {n}", ", as everybody knows", ", who was elected in {n}", ", though few remember it", " for {n} years",
    ", who came from far away", ", according to the records of {n}", ", which surprised many",
)  # fmt: skip
CHATTER = (
    "The weather was mild that year.", "Nobody could say why.", "More on this in the next letter.",
    "The meeting lasted until midnight.", "We had soup for lunch.", "All sources agree on this.",
    "The road was closed for two weeks.", "I shall write again soon.", "This was checked twice.",
    "The old records were lost in a fire.", "It rained all day.", "Thank you for the parcel.",
    "Some pages are missing.", "The figures are from last spring.", "Please keep this to yourself.",
    "The archive is open on Mondays.", "Tickets can be bought at the door.", "The choir sang for an hour.",
)  # fmt: skip
ABOUT = (
    "I visited {x} last spring.", "We spoke about {x} for a while.", "There is a photograph of {x} in the hall.",
    "The question of {x} came up again.", "A file on {x} is kept in the archive.", "{x} was in the news.",
    "Much has been written about {x}.", "{x} and {z} were mentioned together.", "She compared {x} with {z}.",
    "A letter from {z} mentions {x}.",
)  # fmt: skip
OPENINGS = (
    "Dear {z},",
    "Hello {z},",
    "To whom it may concern:",
    "Notes of the day.",
    "Minutes.",
    "From the diary:",
    "# {x}",
    "{x}",
)
