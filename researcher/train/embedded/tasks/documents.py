"""Questions over the documents of a world, solved with the real search tool in one, two or three hops."""

from __future__ import annotations

import random
from typing import NamedTuple

from researcher_tools.corpus import Corpus, Passage, render

from researcher.strategies.prompts import UNKNOWN, answer_prompt
from researcher.train.embedded.tasks.example import Example, Message, Skill, call, result, say, system, user
from researcher.train.embedded.tasks.kinds import Contest, Relation
from researcher.train.embedded.tasks.worlds import Fact, World, slug

HOPS: dict[int, Skill] = {1: "one_hop", 2: "two_hops", 3: "three_hops"}


class Hop(NamedTuple):
    """One thing to look up, and the fact that answers it (None: the documents do not say)."""

    subject: str
    relation: Relation
    fact: Fact | None


class Chain(NamedTuple):
    """A question whose answer is the target of the last hop."""

    question: str
    hops: tuple[Hop, ...]

    @property
    def answer(self) -> str:
        """The right answer."""
        fact = self.hops[-1].fact
        return fact.target if fact else UNKNOWN


class Comparison(NamedTuple):
    """A question that two looked-up numbers decide."""

    question: str
    contest: Contest
    hops: tuple[Hop, Hop]

    @property
    def answer(self) -> str:
        """The right answer."""
        a, b = (hop.fact for hop in self.hops)
        if a is None or b is None or a.number is None or b.number is None:
            return UNKNOWN
        return (a if (a.number > b.number) == (self.contest.pick == "more") else b).subject


def ask_chain(rng: random.Random, world: World, hops: int) -> Chain | None:
    """A question of this many hops, or None where a random walk through the world finds no such path."""
    subject = rng.choice(list(world.kinds))
    path: list[Fact] = []
    seen = {subject}
    for i in range(hops):
        options = [fact for fact in world.of(subject) if fact.target not in seen]
        if i < hops - 1:
            options = [fact for fact in options if fact.relation.phrases and world.of(fact.target)]
        if not options:
            return None
        path.append(rng.choice(options))
        subject = path[-1].target
        seen.add(subject)
    found = tuple(Hop(fact.subject, fact.relation, fact) for fact in path)
    return Chain(_word(rng, found), found)


def ask_unanswerable(rng: random.Random, world: World) -> Chain | None:
    """A question whose last fact no document states, about a thing that they mention or that they do not."""
    before: tuple[Hop, ...] = ()
    subject = rng.choice(list(world.kinds))
    kind = world.kinds[subject]
    if rng.random() < 0.3:
        kind = rng.choice(list(world.spare))
        subject = world.spare[kind]
    elif rng.random() < 0.4:
        chain = ask_chain(rng, world, 1)
        if chain is None or chain.answer not in world.kinds or not chain.hops[0].relation.phrases:
            return None
        before, subject = chain.hops, chain.answer
        kind = world.kinds[subject]
    missing = [r for r in world.relations[kind] if (subject, r.key) not in world.facts]
    if not missing or (any(r.key == "spouse" for r in missing) and _married(world, subject)):
        return None
    hops = (*before, Hop(subject, rng.choice(missing), None))
    return Chain(_word(rng, hops), hops)


def _married(world: World, subject: str) -> bool:
    return any(fact.target == subject for (_, key), fact in world.facts.items() if key == "spouse")


def ask_comparison(rng: random.Random, world: World, *, uneven: bool = False) -> Comparison | None:
    """A question that compares two things of one kind. `uneven`: rather numbers of different lengths, which are rare
    and decided by another rule."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in world.facts.values():
        if fact.relation.contests:
            by_relation.setdefault(fact.relation.key, []).append(fact)
    options = [facts for facts in by_relation.values() if len(facts) > 1]
    if not options:
        return None
    a, b = rng.sample(rng.choice(options), 2)
    for _ in range(20 * uneven):
        if len(str(a.number)) != len(str(b.number)):
            break
        a, b = rng.sample(rng.choice(options), 2)
    if a.number == b.number:
        return None
    contest = rng.choice(a.relation.contests)
    question = contest.question.format(a=a.subject, b=b.subject)
    return Comparison(question, contest, (Hop(a.subject, a.relation, a), Hop(b.subject, b.relation, b)))


def _word(rng: random.Random, hops: tuple[Hop, ...]) -> str:
    thing = hops[0].subject
    for hop in hops[:-1]:
        thing = rng.choice(hop.relation.phrases).format(x=thing)
    return rng.choice(hops[-1].relation.questions).format(x=thing)


class Style(NamedTuple):
    """How the tools answer and which tools there are; training varies it."""

    tools: tuple[str, ...] = ("search", "read")
    k: int = 4
    shuffle: bool = False


class _Trail:
    """The conversation as it grows."""

    def __init__(self, rng: random.Random, corpus: Corpus, question: str, style: Style) -> None:
        prompt = answer_prompt(question, style.tools)
        self.messages: list[Message] = [system(prompt.system), user(prompt.user)]
        self._rng, self._corpus, self._style = rng, corpus, style

    def look_up(self, hop: Hop, think: str) -> Passage | None:
        """Search, once more if need be; the passage that states the hop's fact."""
        first, second = hop.relation.queries
        hits = self._search(f"{hop.subject} {first}", think)
        found = _stating(hits, hop)
        if found:
            return found
        own = slug(hop.subject)
        absent = f"{ask(hop)}\nNot there."
        if "read" in self._style.tools and any(hit.source == own for hit in hits):
            self._tool("read", own, f"{absent} Read {own}.", self._corpus.read(own))
            return _stating(self._corpus.read(own), hop)
        return _stating(self._search(f"{hop.subject} {second}", f"{absent} Search again."), hop)

    def _search(self, query: str, think: str) -> list[Passage]:
        hits = self._corpus.search(query, self._style.k)
        if self._style.shuffle:
            self._rng.shuffle(hits)
        self._tool("search", query, think, hits)
        return hits

    def _tool(self, name: str, argument: str, think: str, hits: list[Passage]) -> None:
        self.messages += [call(name, argument, think), result(render(hits))]


def _stating(hits: list[Passage], hop: Hop) -> Passage | None:
    if hop.fact is None:
        return None
    fact = hop.fact  # a line of a list may stand in the lists of others too
    return next((hit for hit in hits if fact.sentence in hit.text and hit.source == fact.source), None)


def _quotes(found: list[tuple[Passage, str]]) -> str:
    return "".join(f'[{passage.n}] "{sentence}"\n' for passage, sentence in found)


def ask(hop: Hop) -> str:
    """What is looked for, written once more after the tool has answered: the answer is easier to find beside it."""
    return f"Q: Find the {hop.relation.noun} of {hop.subject}."


def _todo(hops: tuple[Hop, ...]) -> str:
    head = f"Find the {hops[0].relation.noun} of {hops[0].subject}"
    return "".join([head, *(f", then its {hop.relation.noun}" for hop in hops[1:])]) + "."


def solve_chain(rng: random.Random, world: World, corpus: Corpus, chain: Chain, style: Style) -> Example | None:
    """The worked trace, or None where the search tool does not find what the question needs."""
    trail = _Trail(rng, corpus, chain.question, style)
    found: list[tuple[Passage, str]] = []
    seen = ""
    for i, hop in enumerate(chain.hops):
        passage = trail.look_up(hop, seen + _todo(chain.hops[i:]))
        if passage is None or hop.fact is None:
            if hop.fact is not None:
                return None
            trail.messages.append(
                say(f"<answer>{UNKNOWN}</answer>", f"{ask(hop)}\nNot there. The documents do not say.")
            )
            return Example("unanswerable", trail.messages, style.tools, UNKNOWN, world.texts)
        found.append((passage, hop.fact.sentence))
        seen = f"{ask(hop)}\n{hop.fact.sentence} [{passage.n}]\n"
    final = f"{_quotes(found)}<answer>{chain.answer}</answer>"
    trail.messages.append(say(final, f"{seen}So {chain.answer}."))
    return Example(HOPS[len(chain.hops)], trail.messages, style.tools, chain.answer, world.texts)


def solve_comparison(
    rng: random.Random, world: World, corpus: Corpus, comparison: Comparison, style: Style
) -> Example | None:
    """The worked trace: look up both numbers, compare them, answer."""
    trail = _Trail(rng, corpus, comparison.question, style)
    found: list[tuple[Passage, str]] = []
    seen = ""
    numbers: list[tuple[int, str]] = []
    for hop in comparison.hops:
        passage = trail.look_up(hop, seen + _todo((hop,)))
        if passage is None or hop.fact is None or hop.fact.number is None:
            return None
        found.append((passage, hop.fact.sentence))
        numbers.append((hop.fact.number, hop.subject))
        seen = f"{ask(hop)}\n{hop.fact.sentence} [{passage.n}]\n"
    decide = comparison.contest.decide(numbers[0], numbers[1])
    final = f"{_quotes(found)}<answer>{comparison.answer}</answer>"
    trail.messages.append(say(final, seen + decide))
    return Example("comparison", trail.messages, style.tools, comparison.answer, world.texts)
