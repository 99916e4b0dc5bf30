"""One thread, one chain of thought (Wei et al. 2022), with tools where the task has them.

Zero-shot, few-shot, in R1's template, or one step a line.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from researcher.errors import UserError
from researcher.strategies.base import Parameters, conclude, failure, wants_support
from researcher.strategies.prompts import Prompt, answer_prompt, parse_answer, step_prompt
from researcher.types import Message, Task, Work
from researcher.views import Plan, View

KEY = "cot"

Style = Literal["zero_shot", "few_shot", "r1", "steps"]

_R1 = (
    "This is a conversation between a user and an assistant. The user asks a question and the assistant solves it: "
    "first it reasons in its mind, then it gives the answer. The reasoning stands between <think> and </think> and "
    "the answer between <answer> and </answer>, like <think> reasoning </think> <answer> answer </answer>."
)
"""What the template of R1-Zero says (DeepSeek-AI 2025, table 1), in words of our own: enough for a base model."""


class Example(BaseModel):
    """A question with its answer; an `answer` that holds an <answer> block is shown as it is, reasoning and all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)

    @property
    def shot(self) -> tuple[Message, Message]:
        """It as turns of a conversation."""
        answer = self.answer if parse_answer(self.answer) is not None else f"<answer>{self.answer}</answer>"
        return Message(role="user", content=self.question), Message(role="assistant", content=answer)


class Chain(Parameters):
    """Base of the strategies whose threads are chains of thought: how such a thread is asked."""

    style: Style = Field(
        default="zero_shot",
        description="zero_shot (Kojima et al. 2022), few_shot (Wei et al. 2022: shows `examples`), "
        "r1 (DeepSeek-AI 2025: <think> and <answer>, for base models), steps (one step a line and no tools, asked as "
        "the searches over steps ask: what trains or measures the policy that they search with)",
    )
    examples: tuple[Example, ...] = Field(default=(), description="for few_shot: a list of {question, answer}")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="sampling temperature")

    @model_validator(mode="after")
    def _examples_are_shown(self) -> Self:
        if bool(self.examples) is not (self.style == "few_shot"):
            raise UserError(
                "style=few_shot needs examples: give a list of {question, answer}."
                if self.style == "few_shot"
                else f"The examples would not be shown with style={self.style}; give style=few_shot."
            )
        return self

    @property
    def calls_tools(self) -> bool:
        """Whether its threads can call tools: steps cannot."""
        return self.style != "steps"

    def prompt(self, task: Task) -> Prompt:
        """The system message and the question."""
        if self.style == "steps":
            return step_prompt(task.question)
        plain = answer_prompt(task.question, task.tools)
        if self.style != "r1":
            return plain
        return plain._replace(system=f"{_R1} {plain.system}" if task.tools else _R1)

    def chain(self, view: View, key: str, *, group: str = "", scorer: str = "") -> Work:
        """A thread that thinks to its answer."""
        return self.work(
            view,
            key,
            self.prompt(view.task),
            group=group,
            tools=view.task.tools,
            temperature=self.temperature,
            scorer=scorer,
            shots=tuple(message for example in self.examples for message in example.shot),
        )


class ChainOfThought(Chain):
    """Runs one thread to its answer."""

    name: Literal["chain_of_thought"] = "chain_of_thought"
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, description="sampling temperature; 0 is greedy")

    @property
    def cancels(self) -> bool:
        """Whether it stops threads early."""
        return False

    def plan(self, view: View) -> Plan:
        """Start the thread, then give its answer."""
        thread = view.graph.thread(KEY)
        if thread is None:
            return Plan(start=(self.chain(view, KEY),))
        if thread.outcome is None:
            return Plan()
        if thread.answer is None:
            return Plan(failure=failure([thread]))
        wanted = wants_support(view.task)
        return Plan(answer=conclude([thread], view.graph, of=1, wanted=wanted, reason="the only thread"))


class Sampler(NamedTuple):
    """How a strategy draws its samples: those of equal samplers can stand in for each other."""

    chain: ChainOfThought
    scorer: str
