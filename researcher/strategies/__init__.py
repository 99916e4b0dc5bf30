"""Strategies: pure planners over the thought graph, found by name."""

from researcher.strategies.load import load_strategy, strategy_class, strategy_names

__all__ = ["load_strategy", "strategy_class", "strategy_names"]
