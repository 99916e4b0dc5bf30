"""Refuses what cannot work, before anything is spent."""

from __future__ import annotations

from collections.abc import Collection

from researcher.errors import UserError
from researcher.protocols import Strategy
from researcher.types import Budget, Capabilities, Task

LARGEST = 2**53
"""Numbers beyond are not exact everywhere that reads the log."""


def check_seed(seed: int) -> None:
    """Raise UserError for a seed that the log and the servers cannot hold."""
    if not -LARGEST < seed < LARGEST:
        raise UserError(f"The seed {seed} is too large; give one between -2^53 and 2^53.")


def check_question(task: Task) -> None:
    """Raise UserError for an empty question."""
    if not task.question.strip():
        raise UserError("The question is empty; give one, for example: researcher run 'Who founded Velar?'")


def check_budget(budget: Budget, *, priced: bool) -> None:
    """Raise UserError for a limit of zero or less, or a cost limit that nothing could enforce."""
    for kind in ("tokens", "calls", "seconds", "cost", "sampled"):
        limit = getattr(budget, kind)
        if limit is not None and not 0 < limit < LARGEST:
            raise UserError(f"A budget of {limit:g} {kind} cannot be kept to; give more than zero, or none at all.")
    if not 0.0 <= budget.reserve < 1.0:
        raise UserError(f"The reserve is a share of the budget in [0, 1), not {budget.reserve:g}.")
    if budget.cost is not None and not priced:
        raise UserError("A cost budget needs prices: set prompt and completion, in dollars for a million tokens.")


def check_tools(task: Task, available: Collection[str]) -> None:
    """Raise UserError for a tool that is not there."""
    for tool in task.tools:
        if tool not in available:
            have = ", ".join(available) or "none"
            raise UserError(
                f"The tool {tool!r} is not available here (there are: {have}); search and read need a documents folder."
            )


CAPABILITIES = {
    "tools": ("tool calls", "vLLM started with a tool parser, llama.cpp started with --jinja, and most hosted servers"),
    "logprobs": ("log probabilities", "vLLM, llama.cpp, and some hosted servers"),
    "steps": ("to continue a begun reply (prefill, or completions of token ids)", "vLLM, SGLang and llama.cpp"),
    "prefill": ("to continue a begun reply", "vLLM, SGLang and llama.cpp"),
    "streaming": ("streamed replies", "nearly all servers"),
    "token_ids": ("token ids", "vLLM, and llama.cpp with a Qwen chat template"),
}
"""What a capability is, and which servers have it; the embedded model has all of these."""


def check_capabilities(
    name: str, needs: Collection[str], uri: str, capabilities: Capabilities, *, what: str = "Strategy"
) -> None:
    """Raise UserError that says which capability the server lacks and which servers have it."""
    for need in sorted(needs):
        if not getattr(capabilities, need, False):
            words, servers = CAPABILITIES.get(need, (need, "other servers"))
            raise UserError(
                f"{what} {name} needs {words}, which {uri} does not offer; {servers} do, and the embedded model does."
            )


def check_calls(name: str, strategy: Strategy, task: Task) -> None:
    """Raise UserError where the task has tools and the strategy's threads could call none of them."""
    if task.tools and not getattr(strategy, "calls_tools", True):
        raise UserError(
            f"Strategy {name} asks for steps of a reply, which can call no tools, and this task has "
            f"{', '.join(task.tools)}; leave the tools out, or take a strategy of whole threads, like vote."
        )


def check_verifier(name: str, strategy: Strategy, task: Task) -> None:
    """Raise UserError where the strategy rests on verdicts and neither the task nor the strategy names a verifier."""
    if getattr(strategy, "needs_verdicts", False) and task.verifier is None:
        raise UserError(
            f"Strategy {name} needs a verifier or a scorer, and this task has none; give --verifier NAME for a rule, "
            f"or --set scorer=judge (any chat model), scorer=orm or scorer=prm (a model with log probabilities)."
        )
