"""The event log and the blobs of a run, in one SQLite file."""

from researcher.store.log import RunStore
from researcher.store.reader import RunReader
from researcher.store.runs import RunSummary, list_runs, new_run_id, run_path

__all__ = ["RunReader", "RunStore", "RunSummary", "list_runs", "new_run_id", "run_path"]
