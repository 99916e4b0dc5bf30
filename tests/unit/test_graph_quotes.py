"""A quote is found where it stands, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.graph.quotes import find_quote

TEXT = "Velar was  founded\nin 1901 by “Ida Brandt” – it wasn’t a village.\n\nIt wasn't large (pop. 400+)."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("Velar was founded in 1901", "Velar was  founded\nin 1901"),
        ('by "Ida Brandt" - it wasn\'t a village.', "by “Ida Brandt” – it wasn’t a village."),
        ("  in 1901 ", "in 1901"),
        ("It wasn’t large (pop. 400+).", "It wasn't large (pop. 400+)."),
        ("village. It", "village.\n\nIt"),
    ],
)
def test_found_as_it_stands(quote: str, found: str) -> None:
    span = find_quote(quote, TEXT)
    assert span is not None
    assert TEXT[slice(*span)] == found


@pytest.mark.parametrize(
    "quote",
    ["velar was founded", "Velar founded", "was foundedin", "founded in 1902", "", "  ", "(pop. 4000", "pop. 400+)?"],
)
def test_touched_up_quotes_are_not_found(quote: str) -> None:
    assert find_quote(quote, TEXT) is None


def test_the_first_place_counts() -> None:
    assert find_quote("a b", "x a b a b") == (2, 5)


@settings(deadline=None)
@given(st.text(min_size=1), st.text(), st.text())
def test_what_is_in_the_text_is_found(quote: str, before: str, after: str) -> None:
    text = before + quote + after
    span = find_quote(quote, text)
    assert (span is None) == (not quote.split())
    if span is not None:
        assert text[slice(*span)] == quote.strip()
        spread = find_quote("\n ".join(quote.split()), text)
        assert spread is not None
        assert text[slice(*spread)].split() == quote.split()
