"""What all threads of a run use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from researcher.engine.budget import Ledger
from researcher.engine.claims import SourceTexts
from researcher.engine.journal import Journal
from researcher.engine.judging import Bench
from researcher.engine.toolbox import Toolbox
from researcher.protocols import Model, Progress
from researcher.types import Capabilities, Task


@dataclass(slots=True)
class Shared:
    """The journal, the model, the budget, the tools and the judges of one run."""

    journal: Journal
    model: Model
    capabilities: Capabilities
    ledger: Ledger
    toolbox: Toolbox
    task: Task
    texts: SourceTexts
    bench: Bench
    record_tokens: bool = True
    streaming: bool = False
    run: str = ""
    """The run's id, by which tools tell its threads from those of other runs."""
    draining: Callable[[], bool] = field(default=lambda: False)
    stopping: anyio.Event = field(default_factory=anyio.Event)
    """Set when the run drains: whoever waits for a person's word gives up."""
    calling: dict[str, Progress] = field(default_factory=dict)
    """Calls in flight by thread, with what they have received."""
