"""What is looked for in a thought: the behaviours, and for each the wordings that give it away, with an example.

The first four are what searches in words are made of (Gandhi et al. 2025, "Cognitive Behaviors that Enable
Self-Improving Reasoners", has backtracking, verification and subgoals; R1's report shows alternatives and second
looks); a unit may show several. Two notations are known: English, and the written searches of the embedded model
(`57: 57-55=2 | 10+5=15 no`, `check 10/5=2`, `Q: Find the town of ...`). What decides is written beside each behaviour:
people, patterns and a judge label by the same words.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple


class Behaviour(StrEnum):
    """What a unit of thought does."""

    EXPLORATION = "exploration"
    BACKTRACKING = "backtracking"
    VERIFICATION = "verification"
    SUMMING_UP = "summing-up"
    SUBGOAL = "subgoal"


RUBRIC: dict[Behaviour, str] = {
    Behaviour.EXPLORATION: "a possible way, case or candidate is tried or proposed, one among others",
    Behaviour.BACKTRACKING: "a way that was tried, or a result that was reached, is given up as failing or mistaken",
    Behaviour.VERIFICATION: "a result that was reached is checked, or the check's outcome is said",
    Behaviour.SUMMING_UP: "a conclusion is drawn from what was found so far, intermediate ones included",
    Behaviour.SUBGOAL: "something smaller is set as the next thing to find or to do, on the way to the answer",
}


class Pattern(NamedTuple):
    """A wording of a behaviour; `example` is a unit that it finds."""

    behaviour: Behaviour
    wording: re.Pattern[str]
    example: str


def _pattern(behaviour: Behaviour, example: str, *wordings: str) -> Pattern:
    return Pattern(behaviour, re.compile("|".join(wordings), re.IGNORECASE), example)


_E, _B, _V, _S, _G = Behaviour
_OPEN = r"^(?:(?:ok(?:ay)?|well|hmm+|now|so|but|and|wait|alright|right|actually|oh|yes|then|also)\b[,.!: ]*)*"
"""Words that may open a sentence before its matter."""
_NUMBER = r"-?\d+(?:/\d+)?"
_SUM = rf"{_NUMBER}\s*[-+*/]\s*{_NUMBER}\s*="
_LET = (
    r"\b(?:let me|let's|let us|lets|i'll|i will|i can|i could|i should|i need to|i want to|i have to|i might|"
    r"we'll|we can|we could|we should|we need to|we might)(?: (?:also|just|first|now|then|next|instead|quickly))*"
)
_NOT = r"(?:n't| not)(?: (?:seem to|really|quite|even|actually|going to))?"

_NOTATION = (
    _pattern(_E, "57: 57-55=2 55+57=112 | 10+5=15 no", rf"^{_NUMBER}: *(?:{_NUMBER}\s*[-+*/]|$)"),
    _pattern(_E, "try 69-30=39: 39 26 49", rf"^try {_NUMBER}"),
    _pattern(_B, "57: 57-55=2 | 10+5=15 no", r"^(?:check |try )?[-(\d][^a-z]*=.*\bno$"),
    _pattern(_V, "check 10/5=2 57-2=55", rf"^check {_NUMBER}"),
    _pattern(_V, "4 36 37 68: 68-4=64 64-37=27 no", rf"^(?:{_NUMBER} ){{2,}}{_NUMBER}: *{_SUM}[^|]*$"),
    _pattern(_G, "Q: Find the town of Duje Tower.", r"^(?:q: *)?find (?:the|what|who|where|when|out|how)\b"),
    _pattern(_B, "Not there.", r"^not (?:there|here|found)\b"),
    _pattern(_E, "Search again.", r"^search again\b"),
    _pattern(_S, "38929 Najes, 12442 Bibevo: 3>1; smaller: 12442 Bibevo.", r"\d[<>=]\d.*; \w+: "),
    _pattern(_S, "The findings disagree.", r"^the findings (?:disagree|agree)\b"),
    _pattern(_V, "Answer: Tepe, yes.", r"^answer: .*, (?:yes|no)\.?$"),
)
"""Of the embedded model: a candidate with what it would need, a first join, a check, a question and what came of it."""

_EXPLORING = (
    _pattern(
        _E,
        "Hmm, what if x is negative?",
        rf"{_OPEN}(?:alternative(?:ly)?|what (?:if|about)|how about|suppose|assume|(?:let's )?say (?:we|i|that)|"
        rf"imagine)\b",
        r"\b(?:possible|different|other|several|many) ways\b|\bthe only (?:way|option|possibility|solution|"
        r"case)\b[^.]*\?",
        rf"{_OPEN}or,? (?:maybe|perhaps|we could|i could|try)\b",
        r"\bhow about\b|\bwhat if\b|[,;] (?:so |or )?(?:maybe|perhaps)\b",
    ),
    _pattern(
        _E,
        "Maybe I can factor it.",
        rf"{_OPEN}(?:maybe|perhaps|possibly)\b(?! (?:that is|that's|this is|not|(?:i|we) (?:made|mis|"
        rf"should (?:check|ver|re)|"
        r"need to (?:check|ver|re)))\w*\b)",
        r"\b(?:i|we) (?:might|may|could) (?:be able to|also|instead|try|use)\b",
    ),
    _pattern(
        _E,
        "Can we put 4 on top of 2?",
        rf"{_OPEN}(?:can|could) \w+\b.*\?",
        r"(?:^|, |: )(?:can|could) (?:we|i|there|it)\b.*\?",
    ),
    _pattern(
        _E,
        "Another approach: use symmetry.",
        r"\b(?:another|a different|other|an alternative|one|a neater|a better|a simpler) (?:possible )?(?:way|"
        r"approach|idea|"
        r"option|possibility|method|route|angle|strategy|interpretation|combination|candidate)s?\b",
    ),
    _pattern(
        _E,
        "Let me try 40 * 2 first.",
        rf"{_LET} (?:try|explore|look at|see what|experiment|start with|switch|investigate|consider)"
        r"(?:ing)?\b",
        r"\bconsider(?:ing)? (?:instead|also|if|what|another|other|an? (?:different|special)|"
        r"(?:the )?(?:\w+ )?(?:cases?|possibilit|alternative|option|example))",
        r"\btry(?:ing)? (?:\w+ing|an?|the|another|other|with|instead|different|some|\d+)\b",
    ),
    _pattern(
        _E,
        "If we start with 75, we need 14 more.",
        rf"{_OPEN}if (?:we|i) (?:take|use|try|start|choose|pick|multiply|add|subtract|divide|combine)\b",
        rf"{_OPEN}(?:instead,|case \d|option \d)",
        r"\binstead of\b.*\?",
    ),
)
"""Another way."""

_TURNING_BACK = (
    _pattern(
        _B,
        "That doesn't work.",
        rf"\b(?:does|did|do|would|will|can|could){_NOT} (?:work|help|lead|fit|match|satisfy|give|get us|get me|"
        rf"make sense|"
        r"add up|equal|reach|hold|be right)",
        r"\b(?:does|did)(?:n't| not) (?:seem|look|sound|feel|appear) (?:to be )?(?:right|correct|possible|promising)",
        rf"\b(?:is|was|are){_NOT} (?:right|correct|true|possible|valid|allowed|helpful|working|going to work|an option|"
        r"the target|what we)\b",
    ),
    _pattern(
        _B,
        "Wait, that's wrong.",
        r"\b(?:that|this|it|which|i|we|my)(?:'s| is| was| seems| must be| are| am)?(?: all| clearly| still)? (?:wrong|"
        r"incorrect|impossible|mistaken|a mistake|an error|a dead end|not (?:right|correct|it|good|an integer|"
        r"a whole))\b[^?]*$",
    ),
    _pattern(
        _B,
        "Let me go back to the second step.",
        r"\b(?:go(?:ing)?|step(?:ping)?|turn(?:ing)?|come|circle) back\b(?! and (?:check|verify))",
        r"\bbacktrack|\bstart(?:ing)? (?:over|again|from scratch|afresh)|\bscra(?:p|tch) (?:that|this)",
        r"\bnever ?mind\b|\bgiv(?:e|ing) up\b|\babandon|\bdiscard|\bdead end\b|\bno luck\b|\bis out\b",
        r"\brul(?:e|es|ed|ing) (?:\w+ )?out\b|\bstuck\b|\b(?:getting|gets) (?:too )?(?:complex|complicated|messy|long|"
        r"nowhere)\b",
        rf"{_LET} (?:reconsider|re-?think|re-?do|re-?start|re-?read)\b",
        r"\bthink (?:about (?:this|it|that) )?(?:differently|again|more (?:carefully|cleverly))\b",
        r"^(?:impossible|not (?:a )?(?:valid|possible|enough|allowed))\b|\bso (?:we|i) can(?:'t|not)\b",
    ),
    _pattern(
        _B,
        "I made a mistake there.",
        r"(?<!maybe )(?<!perhaps )(?<!if )(?<!whether )\b(?:i|we)(?:'ve| have| must have| think i)? (?:made (?:a|an) "
        r"(?:\w+ )?(?:mistake|error|slip)|mis(?:calculated|read|took|counted|understood|applied|remembered)|messed up|"
        r"forgot|overlooked|confused|mixed up)[^?]*$",
    ),
    _pattern(
        _B,
        "91 is too big.",
        r"\b(?:too (?:big|large|high|small|low|far|much|many|little|long|short)|not (?:close )?enough|fails?|failed|"
        r"doesn't|overshoots?|leads? nowhere|no good)(?=[.!,;]|$)",
        r"\b(?:contradicts?|contradiction|contradictory|violates?|violating)\b[^?]*$",
    ),
    _pattern(
        _B,
        "Wait, no.",
        rf"{_OPEN}no(?=[,.!]|$)|\bno, (?:wait|that|this|it|not)\b|\bso no\b|\bon second thought",
        r"\bthere (?:is|are|'s) no (?:such|way|solution|integer)\b",
    ),
)
"""A way given up."""

_CHECKING = (
    _pattern(
        _V,
        "Let me double-check the sum.",
        r"\b(?:double|cross|sanity)[- ]?(?:check|verif|comput|calculat|count|examin|test)",
        r"\bre-?(?:check|verif|comput|calculat|count|examin|test|deriv)",
    ),
    _pattern(
        _V,
        "Let me verify this.",
        rf"(?:{_LET}|\bto) (?:check|verify|confirm|test|validate|make sure|be sure)\b",
        rf"{_LET} see (?:if|whether)\b|\band see (?:if|whether)\b",
        rf"{_OPEN}(?:check(?:ing)?|verif(?:y|ying|ication)|confirm(?:ing)?|test(?:ing)?|proof|indeed)\b",
        r"\b(?:maybe|perhaps|if|whether) (?:i|we) (?:made|mis\w+ed|misread|forgot)\b",
    ),
    _pattern(
        _V,
        "Plugging x = 3 back in gives 0.",
        r"\b(?:plug(?:ging)?|substitut(?:e|ing)) (?:\S+ ){0,4}?(?:back\b|into the original)",
    ),
    _pattern(
        _V,
        "Is that right?",
        r"\b(?:is|are|does|do|was) (?:this|that|it|these|they|the \w+|my \w+) (?:really |actually |all )?(?:right|"
        r"correct|"
        r"true|work|equal|hold|satisf\w+|make sense|match|fit|add up|valid|used)\b[^.]*\?",
        r"\b(?:is|are) \S+ (?:really|actually)\b.*\?|\bis (?:this|that|it|there) (?:really )?(?:even )?(?:possible|"
        r"a valid|an "
        r"error|a mistake|the case)\b.*\?",
        r"\b(?:this|that|it|i|we|assumption|calculation|reasoning)\b.* (?:might|may|could) be (?:wrong|mistaken|off|"
        r"an error)",
    ),
    _pattern(
        _V,
        "Yes, that checks out.",
        r"\b(?:that|this|it|which|everything|all|answer|equation|result|solution|both|conditions?)(?: \w+)? "
        r"(?:checks? out|match(?:es)?|works(?: out)?|is (?:indeed )?(?:correct|right|true|valid|consistent)|adds? up|"
        r"holds?(?= true|[.!,]|$)|satisf(?:y|ies)|fits?|are (?:correct|satisfied)|(?:seem|look|sound)s? (?:right|"
        r"correct|"
        r"good|fine|consistent|reasonable))\b",
        rf"{_OPEN}(?:yep\W+|yeah\W+)?(?:correct|exactly|right|good|close enough|perfect|great)[.!]",
        r"\bearlier,? (?:i|we) (?:got|found|had)\b|✓|✔",
    ),
)
"""A check, and how it came out."""

_NOT_SO = (
    r"(?!(?:let|lets|what|how|why|which|who|maybe|perhaps|first|try|far|many|much|is|does|the question|now|wait|next|"
    r"they|again|in terms|when|then|it (?:does|is)n|that(?:'s| is)? (?:not|wrong|doesn)|[a-z]+ing|if(?!.* then\b)|"
    r"(?:i|we) (?:need|have to|should|must|can(?!'t)|could|will|want|think i))\b)"
)
"""What follows "so" where it goes on and does not conclude."""
_CONCLUDING = (
    _pattern(
        _S,
        "So Tepe.",
        rf"^(?:(?:ok(?:ay)?|well|hmm+|now|and|but|yes|alright)\b[,. ]*)*so\b,? {_NOT_SO}[^?]*[^?:]$",
        rf"[,;] so {_NOT_SO}(?:the|that|this|it|there|we (?:get|have)|\w+ (?:is|are|must|equals|=))\b[^?]*[^?:]$",
    ),
    _pattern(
        _S,
        "Therefore x is 4.",
        r"(?:^|[,;:] )(?:and |but )?(?:therefore|thus|hence|consequently|in (?:summary|conclusion|short|total)|overall|"
        r"to (?:summari[sz]e|sum up|conclude|recap)|all in all|altogether)\b[^?]*[^?:]$",
    ),
    _pattern(
        _S,
        "The answer is 12.",
        r"\b(?:answer|solution|result|expression) (?:is|must be|should be|would be|will be|equals)\b[^?]*$",
    ),
    _pattern(
        _S,
        "This means that both are odd.",
        rf"{_OPEN}(?:combining|(?:this|that|it|which) (?:means|implies|shows|suggests|tells us|gives us|"
        rf"leaves us with)|"
        r"(?:we|i) (?:conclude|have found|now know)|it follows|from (?:this|that|these|the above))\b[^?]*$",
        rf"{_OPEN}put(?:ting)? (?:it|this|that|these|them|everything|all)\b.*together",
    ),
    _pattern(_S, "I'm confident in that.", r"\bi(?:'m| am) (?:\w+ )?(?:confident|certain|sure|convinced)\b"),
)
"""A conclusion."""

_PLANNING = (
    _pattern(
        _G,
        "I need to find the founder.",
        r"(?<!don't )(?<!do )(?<!not )\b(?:i|we)(?:'d|'ll)? (?:\w+ )?need (?!to (?:check|verify|make sure|be sure|"
        r"confirm))",
        r"\b(?:i|we) (?:\w+ )?(?:have|want|ought) to (?:first |now |then |also )*(?:find|figure out|determine|compute|"
        r"calculate|work out|get|solve|know|identify|reach|show|express|look up|count|understand)\b",
    ),
    _pattern(
        _G,
        "First, compute the discriminant.",
        rf"{_OPEN}(?:first(?:ly)?|second(?:ly)?|third|next|finally|lastly|step \d+|to (?:start|"
        rf"begin)(?: with)?)\b[,:.]? +"
        r"(?:(?:i|we|let|find|comput|calculat|determin|look|work|solv|sort|multipl|add|subtract|divid|identif|list|"
        r"count|"
        r"set|simplif|expand|factor|express|convert|merge)\w*)",
        r"^then, (?:find|comput|calculat|determin|express|simplif|solve)\w*",
    ),
    _pattern(
        _G,
        "The next step is to find its length.",
        r"\b(?:the|my|our) (?:first|next|last|final) (?:step|task|goal|thing) (?:is|will|would)\b",
        r"\b(?:the|my|our) (?:plan|goal|aim|task|target now) is\b|\bsub-?(?:goal|problem|task|question)s?\b",
        r"\bbreak(?:ing)? (?:\w+ ){0,3}(?:down|into)\b|\b(?:let's|let me|we can|i'll) (?:start|begin) by\b",
    ),
    _pattern(
        _G,
        "Let's compute the area first.",
        rf"{_LET} (?:find|figure out|determine|compute|calculate|work out|solve for|look up|count|list|"
        rf"write (?:down|out)|"
        r"think about (?:when|how|what|which|why))\b",
    ),
)
"""What to do next."""

PATTERNS: tuple[Pattern, ...] = (*_NOTATION, *_EXPLORING, *_TURNING_BACK, *_CHECKING, *_CONCLUDING, *_PLANNING)

SECOND_LOOKS = re.compile(
    r"\b(?:wait|hmm+|aha|oh|actually|alternatively|hold on|double[- ]?check|re-?check|let me think|"
    r"on second thought)\b",
    re.IGNORECASE,
)
"""The words that reports of R1-like training count ("aha moments"); counted as words, whatever they do."""
