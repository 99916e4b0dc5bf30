"""Sandboxes for the code that reasoners write."""
