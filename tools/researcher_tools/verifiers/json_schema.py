"""The `json_schema` verifier: the answer is one JSON value that fits `task.data["schema"]`.

Strict JSON: no key twice, no NaN or infinity, nothing around it but a code fence. jsonschema runs in a process of its
own, since a pattern or a recursive schema may take for ever on the wrong answer; then the verdict is `unverified`.
"""

from __future__ import annotations

import importlib.util
import re

from researcher.types import Task, Verdict
from researcher_tools.verifiers.verdicts import settled, unverified
from researcher_tools.verifiers.worker import Worker

MAX_LENGTH = 100_000
"""Characters of an answer that can be right."""

SECONDS = 5.0

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)


class JsonSchema:
    """Checks against `task.data["schema"]`; `seconds` is the time that one validation may take."""

    name = "json_schema"

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._worker = Worker("researcher_tools.verifiers.json_schema_worker", seconds, "the validation")

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong with the first violation, or unverified where the schema or the validation is at fault."""
        schema = task.data.get("schema")
        if not isinstance(schema, (dict, bool)):
            return unverified(self.name, "the task has no schema")
        if not answer.strip() or len(answer) > MAX_LENGTH:
            return settled(self.name, False, f"empty, or longer than {MAX_LENGTH} characters")
        if importlib.util.find_spec("jsonschema") is None:
            reason = "jsonschema is not installed: pip install 'researcher-orchestrator[local]'"
            return unverified(self.name, reason)
        text = answer.strip()
        fenced = _FENCED.fullmatch(text)
        try:
            reply = await self._worker.ask({"schema": schema, "text": fenced.group(1) if fenced else text})
        except (TimeoutError, OSError, ValueError, TypeError) as error:  # TypeError: a schema that is no JSON
            return unverified(self.name, str(error))
        right, reason = reply.get("right"), str(reply.get("reason", ""))
        return unverified(self.name, reason) if right is None else settled(self.name, bool(right), reason)

    async def aclose(self) -> None:
        """End the process; it is started again if it is needed again."""
        await self._worker.aclose()
