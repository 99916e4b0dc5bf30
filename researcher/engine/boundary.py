"""Where a thread's failure becomes data: the only broad `except` of the engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from researcher.errors import BoundaryError, BudgetExceeded, ContextTooLong, LimitExceeded, StoreError
from researcher.types import Outcome

BUDGET = "budget"
"""The boundary of threads that a limit of the run ended; a resume with a larger budget opens them again."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Ending:
    """How a thread ended; `outcome` stays None while it has not."""

    outcome: Outcome | None = None
    detail: str = ""
    boundary: str | None = None


@contextmanager
def boundary(ending: Ending) -> Iterator[None]:
    """Turns whatever the body raises into a typed ending; a broken event log alone goes on up, for it ends the run."""
    try:
        yield
    except StoreError:
        raise
    except (LimitExceeded, ContextTooLong) as error:
        ending.outcome, ending.detail = Outcome.EXHAUSTED, str(error)
        ending.boundary = BUDGET if isinstance(error, BudgetExceeded) else None
    except BoundaryError as error:
        ending.outcome, ending.detail, ending.boundary = Outcome.FAILED, str(error), error.boundary
    except Exception as error:  # the boundary: a fault of ours or of a plug-in stays on its thread
        logger.exception("a thread failed inside the engine")
        ending.outcome, ending.detail, ending.boundary = Outcome.FAILED, f"{type(error).__name__}: {error}", "engine"
