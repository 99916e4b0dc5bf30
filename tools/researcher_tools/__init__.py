"""Tools for reasoner threads."""
