"""The engine: runs a strategy's threads on a model, keeps the budget, and records everything."""

from researcher.engine.budget import Prices
from researcher.engine.orchestrator import Orchestrator
from researcher.engine.run import Run, RunResult, RunStats, StrategyStalled

__all__ = ["Orchestrator", "Prices", "Run", "RunResult", "RunStats", "StrategyStalled"]
