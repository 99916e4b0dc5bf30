"""Answers that say the same have one canonical form, others do not, and nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.graph.canonical import LENGTH, canonical, canonical_text

SAME = [
    ("1,234.50", "1234.5", "$1,234.50", "1234.500"),
    ("1/2", "0.5", ".5", "\\frac{1}{2}", "0.50", "2/4", "½".replace("½", "1⁄2"), "(1/2)"),
    ("1/3", "2/6", "\\dfrac{1}{3}"),
    ("50%", "50", "50 %", "50.", "50\\%", "5e1"),
    ("-3", "−3", "- 3", "–3"),
    ("0", "-0", "0.0", "+0", "00"),
    ("1.5", "1 1/2", "3/2"),
    ("42", "\\boxed{42}", "$42$", "\\(42\\)", "x = 42", "**42**", '"42"', "42."),
    ("(3+5)*8", "8*(5+3)", "8 × (5 + 3)", "(5+3)*8 = 64", "(3 + 5) x 8", "((3+5))*8", "8 \\times (3+5)"),
    ("10-(4-1)", "10-4+1", "1+10-4"),
    ("8/(4/2)", "8*2/4", "2*8/4"),
    ("The Eiffel Tower.", "eiffel tower", '"The  Eiffel\nTower"', "EIFFEL TOWER!", "‘Eiffel Tower’"),
    ("A", "(A)", "a)", "a."),
    ("an apple", "apple", "Apple."),
    ("Straße", "STRASSE"),
    ("Müller", "Mu\u0308ller"),
]
DIFFERENT = [
    ("3+5", "3*5"), ("10-4", "4-10"), ("8/2*3", "8/(2*3)"), ("(3+5)*8", "3+5*8"), ("1/2", "1/3"), ("0.1", "0.10001"),
    ("12,34", "1234"), ("5 apples", "5"), ("yes", "no"), ("Paris, France", "Paris"), ("(3+5)*8 = 65", "(3+5)*8"),
    ("1e400", "1e4"), ("", "0"), ("a b", "ab"), ("-5", "5"), ("2**3", "2*3"),
]  # fmt: skip


@pytest.mark.parametrize("answers", SAME, ids=lambda answers: answers[0])
def test_the_same_answer(answers: tuple[str, ...]) -> None:
    assert {answer: canonical(answer) for answer in answers} == dict.fromkeys(answers, canonical(answers[0]))


@pytest.mark.parametrize(("one", "two"), DIFFERENT)
def test_different_answers(one: str, two: str) -> None:
    assert canonical(one) != canonical(two)


@pytest.mark.parametrize(
    ("answer", "form"),
    [("1,234.50", "1234.5"), ("1/3", "1/3"), ("8*(5+3)", "(3+5)*8"), ("The Tower.", "tower"), ("", ""), ("5/0", "5/0")],
)
def test_the_form_itself(answer: str, form: str) -> None:
    assert canonical(answer) == form


@pytest.mark.parametrize(
    "answer",
    ["(" * 5000, "1" * 5000, "-" * 150 + "1", "1e99", "1/0", "\\boxed{" * 300, "((1)" * 40, "\x00", "\ud800", "1+" * 99,
     "(" * 99 + "1" + ")" * 99, "9" * 190 + "/" + "7" * 3],
)  # fmt: skip
def test_hostile_answers_do_not_raise(answer: str) -> None:
    assert canonical(canonical(answer)) == canonical(answer)


def test_long_answers_are_short_and_stay_apart() -> None:
    one, two = "word " * LENGTH + "one", "word " * LENGTH + "two"
    assert len(canonical(one)) < 200
    assert canonical(one) != canonical(two)
    assert canonical(one) == canonical(one.upper())


@settings(deadline=None)
@given(st.text() | st.text(alphabet="0123456789+-*/().,=$% xX\"'aA*_\\{}\n!", max_size=30))
def test_canonical_forms_are_stable(text: str) -> None:
    form = canonical(text)
    assert canonical(form) == form
    assert canonical_text(canonical_text(text)) == canonical_text(text)


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6))
def test_decimals_are_exact(value: object) -> None:
    from decimal import Decimal

    assert isinstance(value, Decimal)
    assert Decimal(canonical(f"{value:,}")) == value
    assert canonical(f"{value:,}") == canonical(f"{value}") == canonical(f"{value}00")


_sums = st.recursive(
    st.integers(1, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+*"), inner).map(lambda t: (t[0], t[1], t[2])),
    max_leaves=6,
)


@settings(deadline=None)
@given(_sums)
def test_terms_may_be_swapped(tree: object) -> None:
    def render(node: object, swap: bool) -> str:
        if not isinstance(node, tuple):
            return str(node)
        left, right = render(node[0], swap), render(node[2], swap)
        return f"({right}{node[1]}{left})" if swap else f"({left}{node[1]}{right})"

    assert canonical(render(tree, False)) == canonical(render(tree, True))
