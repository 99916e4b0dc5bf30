"""The thought graph: a pure fold of a run's events."""

from researcher.graph.graph import ThoughtGraph, Vote

__all__ = ["ThoughtGraph", "Vote"]
