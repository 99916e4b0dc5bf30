"""Researcher."""
