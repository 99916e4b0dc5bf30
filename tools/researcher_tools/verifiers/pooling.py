"""The `pooling` verifier: a reward model on a pooling server, `pooling:http://host:port/v1#model`.

Options stand in the URL's query, like `?aggregate=min&tag=ки&good=0&format=text`:

- `tag`: the text after each step at which the model is read; `<extra_0>` (Qwen2.5-Math-PRM) by default. An empty one
  is for an outcome reward model, whose single row scores the whole.
- `good`: which value of a row is for a good step; the last by default, 0 for Math-Shepherd, whose labels are (+, -).
- `scale`: what the values are made of: `none` (they are probabilities, as vLLM gives them), `softmax`, `sigmoid`.
- `format`: `chat` sends the question and the steps as two turns, `text` as one prompt, as Math-Shepherd has it.
- `aggregate`: of a whole solution's steps: `last`, `min`, `prod`, `mean`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from researcher.errors import BadResponse, ModelError, UserError
from researcher.types import Task, Verdict
from researcher_tools.verifiers.aggregates import aggregate_of, lines
from researcher_tools.verifiers.reward_server import RewardServer, Row
from researcher_tools.verifiers.verdicts import scored, unverified

FORM = "like pooling:http://host:8000/v1#model"
_OPTIONS = {"tag": "<extra_0>", "good": "-1", "scale": "none", "format": "chat", "aggregate": "last"}
_CHOICES = {"scale": ("none", "softmax", "sigmoid"), "format": ("chat", "text")}


class Address(NamedTuple):
    """A server's root, a model's name and the options."""

    root: str
    model: str
    options: dict[str, str]


class Pooling:
    """Scores the steps of a solution on a reward server; one call scores all steps so far."""

    reads_solution = True

    def __init__(self, address: str = "", *, server: RewardServer | None = None) -> None:
        root, model, options = parse_address(address)
        self.name = "pooling"
        self._tag, self._scale, self._format = options["tag"], options["scale"], options["format"]
        self._good, self._aggregate = int(options["good"]), aggregate_of("pooling", options["aggregate"])
        self._server = RewardServer(root, model) if server is None else server

    async def verify_step(self, task: Task, steps: Sequence[str]) -> Verdict:
        """The score of the last step; unverified where the server could not give it."""
        try:
            return scored(self.name, (await self._scores(task.question, steps))[-1])
        except ModelError as error:
            return unverified(self.name, str(error))

    async def verify(self, task: Task, answer: str) -> Verdict:
        """The aggregate of the scores of a solution's lines; unverified where the server could not give them."""
        steps = lines(answer)
        if not steps:
            return unverified(self.name, "the solution is empty")
        try:
            return scored(self.name, self._aggregate(await self._scores(task.question, steps)))
        except ModelError as error:
            return unverified(self.name, str(error))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    async def _scores(self, question: str, steps: Sequence[str]) -> list[float]:
        tag = self._tag
        clean = [step.replace(tag, "").strip() if tag else step.strip() for step in steps]
        if not clean:
            raise BadResponse("there is no step to score")
        rows = await self._server.rows(self._prompt(question.replace(tag, "") if tag else question, clean))
        expected = len(clean) if tag else 1
        if len(rows) != expected:
            raise BadResponse(
                f"the server gave {len(rows)} values for {expected} steps; does it pool at the step tag {tag!r} "
                "(vLLM: pooling_type STEP with its step_tag_id)?"
            )
        return [self._probability(row) for row in rows]

    def _prompt(self, question: str, steps: Sequence[str]) -> dict[str, Any]:
        if self._format == "text":
            solution = "\n".join(f"{step} {self._tag}" for step in steps) if self._tag else "\n".join(steps)
            return {"input": f"{question} {solution}"}
        solution = "".join(f"{step}{self._tag}" for step in steps) if self._tag else "\n".join(steps)
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]}

    def _probability(self, row: Row) -> float:
        if not -len(row) <= self._good < len(row):
            raise BadResponse(f"the server gave {len(row)} values for a step; there is no number {self._good}")
        value = row[self._good]
        match self._scale:
            case "softmax":
                top = max(row)
                return math.exp(value - top) / math.fsum(math.exp(each - top) for each in row)
            case "sigmoid":
                return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
        if not 0.0 <= value <= 1.0:
            raise BadResponse(f"the server gave {value:g}, which is no probability; say scale=softmax or scale=sigmoid")
        return value


def parse_address(text: str) -> Address:
    """The parts of an address. Raises UserError that says what is wrong."""
    url = _split(text)
    if url is None:
        raise UserError(f"The verifier pooling needs the address of a server, {FORM}, not {text[:80]!r}.")
    options = dict(_OPTIONS)
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if name not in options:
            raise UserError(f"The verifier pooling has no option {name!r}; there are: {', '.join(options)}.")
        options[name] = value
    for name, choices in _CHOICES.items():
        if options[name] not in choices:
            raise UserError(f"The option {name} of pooling is one of {', '.join(choices)}, not {options[name]!r}.")
    if not options["good"].removeprefix("-").isdecimal() or not options["good"].isascii():
        raise UserError(f"The option good of pooling is the place of a value, like 0 or -1, not {options['good']!r}.")
    root = f"{url.scheme}://{url.netloc}{url.path.rstrip('/').removesuffix('/v1')}"
    return Address(root, url.fragment, options)


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        return url if url.scheme in ("http", "https") and url.hostname and url.port != 0 else None
    except ValueError:  # a port that is none, brackets that do not close
        return None
