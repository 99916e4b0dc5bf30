"""One thread, one chain of thought (Wei et al. 2022, zero-shot), with tools where the task has them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from researcher.protocols import Plan, View
from researcher.strategies.base import Parameters, conclude, failure, wants_support
from researcher.strategies.prompts import answer_prompt

KEY = "cot"


class ChainOfThought(Parameters):
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
            prompt = answer_prompt(view.task.question, view.task.tools)
            return Plan(start=(self.work(view, KEY, prompt, tools=view.task.tools, temperature=self.temperature),))
        if thread.outcome is None:
            return Plan()
        if thread.answer is None:
            return Plan(failure=failure([thread]))
        wanted = wants_support(view.task)
        return Plan(answer=conclude([thread], view.graph, of=1, wanted=wanted, reason="the only thread"))
