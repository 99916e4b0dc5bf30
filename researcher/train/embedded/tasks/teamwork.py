"""What a thread does for the others: splitting a question, writing the synthesis, judging an answer."""

from __future__ import annotations

import random
from typing import NamedTuple

from researcher.strategies.prompts import UNKNOWN, Finding, Quote, judge_prompt, split_prompt, synthesis_prompt
from researcher.train.embedded.tasks.documents import Chain, Comparison, ask, ask_chain, ask_comparison
from researcher.train.embedded.tasks.example import Example, say, system, user
from researcher.train.embedded.tasks.worlds import World


class MultiPart(NamedTuple):
    """Several independent questions in one sentence."""

    question: str
    parts: tuple[Chain, ...]

    @property
    def answer(self) -> str:
        """The right answers in order, separated by semicolons."""
        return "; ".join(part.answer for part in self.parts)


def lower_first(question: str) -> str:
    """The question as it stands after `and`."""
    return question[0].lower() + question[1:]


def ask_parts(rng: random.Random, world: World) -> MultiPart | None:
    """Two or three independent questions, joined."""
    count = 2 if rng.random() < 0.5 else 3
    parts = [ask_chain(rng, world, 1 if rng.random() < 0.6 else 2) for _ in range(count)]
    chains = tuple(part for part in parts if part is not None)
    if len(chains) < count or len({chain.question for chain in chains}) < count:
        return None
    texts = [chains[0].question, *(lower_first(chain.question) for chain in chains[1:])]
    bare = [text.rstrip("?") for text in texts]
    return MultiPart(f"{', '.join(bare[:-1])}, and {bare[-1]}?", chains)


def ask_any(rng: random.Random, world: World) -> Chain | Comparison | MultiPart | None:
    """A question of any form."""
    form = rng.random()
    if form < 0.3:
        return ask_chain(rng, world, rng.choice((1, 2, 2, 3)))
    return ask_comparison(rng, world) if form < 0.6 else ask_parts(rng, world)


def sub_questions(asked: Chain | Comparison | MultiPart) -> list[str]:
    """The independent questions in it, each as its own sentence."""
    match asked:
        case Chain():
            return [asked.question]
        case Comparison():
            return [hop.relation.questions[0].format(x=hop.subject) for hop in asked.hops]
        case MultiPart():
            return [part.question for part in asked.parts]


def make_split(rng: random.Random, world: World) -> Example | None:
    """A question and its sub-questions."""
    asked = ask_any(rng, world)
    if asked is None:
        return None
    prompt = split_prompt(asked.question)
    lines = "\n".join(f"{i}. {text}" for i, text in enumerate(sub_questions(asked), 1))
    return Example("splitting", [system(prompt.system), user(prompt.user), say(lines)], (), lines, {})


def _finding(question: str, chain: Chain) -> Finding:
    facts = [hop.fact for hop in chain.hops if hop.fact is not None]
    return Finding(question, chain.answer, tuple(fact.sentence for fact in facts))


def _lost(rng: random.Random, findings: list[Finding]) -> list[Finding]:
    if rng.random() < 0.15:
        i = rng.randrange(len(findings))
        findings[i] = Finding(findings[i].question, UNKNOWN)
    return findings


def write_up(findings: list[Finding], answer: str, think: str = "") -> str:
    """The synthesis: each sentence ends in the number of its finding."""
    lines = []
    for i, finding in enumerate(findings, 1):
        if finding.quotes:
            lines += [f"{quote.rstrip('.')} [{i}]." for quote in finding.quotes]
        else:
            lines.append(f"No document answers: {finding.question} [{i}].")
    return "\n".join([*lines, *([think] if think else []), f"<answer>{answer}</answer>"])


def _compare(rng: random.Random, comparison: Comparison) -> tuple[list[Finding], str, str]:
    questions = sub_questions(comparison)
    chains = [Chain(question, (hop,)) for question, hop in zip(questions, comparison.hops, strict=True)]
    findings = _lost(rng, [_finding(chain.question, chain) for chain in chains])
    a, b = (finding.answer for finding in findings)
    if UNKNOWN in (a, b):
        return findings, UNKNOWN, ""
    x, y = ((hop.fact.number, hop.subject) for hop in comparison.hops if hop.fact and hop.fact.number is not None)
    return findings, comparison.answer, comparison.contest.decide(x, y)


def _parts(rng: random.Random, asked: MultiPart | Chain, other: Chain | None) -> tuple[list[Finding], str, str]:
    chains = asked.parts if isinstance(asked, MultiPart) else (asked,)
    findings = _lost(rng, [_finding(chain.question, chain) for chain in chains])
    rival = other.hops[-1].fact if other else None
    last = chains[-1].hops[-1].fact
    if rival and last and len(chains) == 1 and findings[0].quotes and rival.target != last.target:
        sentence = rng.choice(last.relation.facts).format(x=last.subject, y=rival.target)
        findings.append(Finding(chains[0].question, rival.target, (sentence,)))
        both = f"{last.target} or {rival.target}"
        return findings, both, "The findings disagree."
    return findings, "; ".join(finding.answer for finding in findings), ""


def make_synthesis(rng: random.Random, world: World) -> Example | None:
    """Findings of a question and the cited answer."""
    asked = ask_any(rng, world)
    if asked is None:
        return None
    if isinstance(asked, Comparison):
        findings, answer, think = _compare(rng, asked)
    else:
        findings, answer, think = _parts(rng, asked, _rival(rng, world, asked))
    prompt = synthesis_prompt(asked.question, findings)
    final = say(write_up(findings, answer, think))
    return Example("synthesis", [system(prompt.system), user(prompt.user), final], (), answer, {})


def _rival(rng: random.Random, world: World, asked: MultiPart | Chain) -> Chain | None:
    """A fact of the same relation about something else, whose target makes a contradiction."""
    if isinstance(asked, MultiPart) or rng.random() < 0.5:
        return None
    key = asked.hops[-1].relation.key
    facts = [f for (_, k), f in world.facts.items() if k == key and f.subject != asked.hops[-1].subject]
    if not facts:
        return None
    chain = ask_chain(rng, world, 1)
    fact = rng.choice(facts)
    return chain and Chain(asked.question, (*asked.hops[:-1], asked.hops[-1]._replace(fact=fact)))


def make_judgement(rng: random.Random, world: World) -> Example | None:
    """A question, an answer, its evidence, and the sign."""
    chain = ask_chain(rng, world, rng.choice((1, 1, 2)))
    if chain is None:
        return None
    facts = [hop.fact for hop in chain.hops if hop.fact is not None]
    if any(fact.subject not in fact.sentence for fact in facts):  # a line of a list proves nothing alone
        return None
    quotes = [fact.sentence for fact in facts]
    answer, sign = chain.answer, "+"
    if rng.random() < 0.5:
        spoiled = _spoil(rng, world, chain, quotes)
        if spoiled is None:
            return None
        answer, sign = spoiled, "-"
    evidence = [
        Quote(n, quote) for n, quote in zip(sorted(rng.sample(range(1, 100), len(quotes))), quotes, strict=True)
    ]
    prompt = judge_prompt(chain.question, answer, evidence)
    # without thought it is one token, as after a server's empty block; with thought it reads the evidence first
    think = "" if rng.random() < 0.3 else _weigh(chain, evidence, answer)
    return Example("judging", [system(prompt.system), user(prompt.user), say(sign, think)], (), sign, {})


def _weigh(chain: Chain, evidence: list[Quote], answer: str) -> str:
    """What the evidence says to each hop, and whether that is the answer."""
    lines: list[str] = []
    for hop in chain.hops:
        lines.append(ask(hop))
        quote = next((quote for quote in evidence if hop.fact and quote.text == hop.fact.sentence), None)
        if hop.fact is None or quote is None:
            return "\n".join([*lines, "Not there."])
        lines += [f"{quote.text} [{quote.n}]", f"So {hop.fact.target}."]
    return "\n".join([*lines, f"Answer: {answer}, {'yes' if answer == chain.answer else 'no'}."])


def _spoil(rng: random.Random, world: World, chain: Chain, quotes: list[str]) -> str | None:
    """Make the evidence or the answer wrong in place; the answer to show."""
    last = chain.hops[-1].fact
    assert last is not None
    same = [
        f
        for (_, k), f in world.facts.items()
        if k == last.relation.key and f.subject != last.subject and f.target != last.target
    ]
    about = [f for f in world.of(last.subject) if f.relation.key != last.relation.key]
    form = rng.random()
    if form < 0.35 and same:  # the right relation of another thing, quoted and answered
        other = rng.choice(same)
        quotes[-1] = other.sentence
        return other.target
    if form < 0.6 and same:  # the right quote, another answer
        return rng.choice(same).target
    if form < 0.8 and about:  # another fact about the thing
        other = rng.choice(about)
        quotes[-1] = other.sentence
        return other.target if rng.random() < 0.5 else chain.answer
    if form < 0.9:
        return last.subject
    if len(quotes) == 2:
        quotes.pop()
        return chain.answer
    return None
