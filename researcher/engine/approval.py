"""Whether a tool call may be made: `always`, `never`, or a person or a callback is asked."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Literal, NamedTuple, get_args

import anyio

from researcher.errors import UserError
from researcher.protocols import Approve, Asking, Tool

Approval = Literal["always", "ask", "never"]
"""always: allowed without asking; ask: the callback decides on each call; never: refused."""

logger = logging.getLogger(__name__)


class Decision(NamedTuple):
    """The word on a call: what goes into the record (empty where nobody was asked), and what the model is told."""

    allowed: bool
    record: str = ""
    reason: str = ""


class Approvals:
    """The policy of each tool, and whom to ask.

    `policy` is by tool; a tool it does not name has the policy it brings along (its attribute `approval`), else
    `always`: reading what the user gave and running code in the sandbox need nobody's word. `SERVER__*`, which grants
    all tools of an MCP server, is the server here.
    """

    def __init__(self, policy: Mapping[str, str] | None = None, approve: Approve | None = None) -> None:
        for name, value in (policy or {}).items():
            if value not in get_args(Approval):
                raise UserError(f"The approval of {name} must be always, ask or never, not {value!r}.")
        self.policy = {name.removesuffix("__*"): value for name, value in (policy or {}).items()}
        self._approve = approve

    @property
    def can_ask(self) -> bool:
        """Whether there is anybody to ask."""
        return self._approve is not None

    def of(self, name: str, tool: Tool) -> str:
        """What holds for this tool: what is said of it, of the server it is on, or what it brings along."""
        own: str = getattr(tool, "approval", "always")
        return self.policy.get(name) or self.policy.get(getattr(tool, "server", "")) or own

    def check(self, known: Collection[str]) -> None:
        """Raise UserError for a policy of no tool: a `never` with a slip of the pen would allow the call."""
        for name in self.policy:
            if name not in known and "__" not in name:
                close = get_close_matches(name, sorted(known), n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}."
                raise UserError(f"The approval of {name!r} is of no tool and no MCP server; {hint}")

    async def decide(self, policy: str, asking: Asking, stopping: anyio.Event | None = None) -> Decision | None:
        """The word on this call; None where the run stopped while somebody was asked: the call is open still."""
        name = asking.tool
        if policy == "always":
            return Decision(True)
        if policy == "never":
            return Decision(False, "refused: never", f"The tool {name} is switched off in this run; go on without it.")
        if self._approve is None:
            return Decision(
                False,
                "refused: nobody to ask",
                f"The tool {name} needs a person's approval, and nobody can be asked here; go on without it.",
            )
        allowed = await self._asked(self._approve, asking, stopping)
        if allowed is None:
            return None
        if allowed:
            return Decision(True, "allowed: asked")
        return Decision(
            False,
            "refused: asked",
            f"This call of {name} was not approved; do not repeat it, go on without it.",
        )

    async def _asked(self, approve: Approve, asking: Asking, stopping: anyio.Event | None) -> bool | None:
        """The callback's word; None where the run stopped first. A callback that breaks has not allowed anything."""
        word: list[bool] = []
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                assert stopping is not None
                await stopping.wait()
                group.cancel_scope.cancel()

            if stopping is not None:
                group.start_soon(stop)
            try:
                word.append(bool(await approve(asking)))
            except Exception:  # the boundary of the callback, which is a stranger's code
                logger.exception("the approval of %s raised", asking.tool)
                word.append(False)
            group.cancel_scope.cancel()
        return word[0] if word else None
