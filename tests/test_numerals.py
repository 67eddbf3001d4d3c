"""A figure never looks as if it were on the other side of a bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.numerals import exactly, floored, per_cent, within


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100 %"), (0.99999, "99 %"), (0.7996, "79 %"), (0.8, "80 %"), (0.29, "29 %"), (0.003, "0.3 %"), (0, "0 %")],
)
def test_a_share_is_cut(share, text):
    assert per_cent(share) == text


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.integers(0, 100))
def test_a_share_is_as_much_as_a_gate_asks_for_just_if_it_looks_so(part, rest, gate):
    share = part / (part + rest)
    shown = float(per_cent(share).split()[0])
    assert (shown >= gate) == (share >= gate / 100 or (gate == 0))
    assert shown < 100
    assert (shown > 0) == (part > 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.99, "0.99"), (0.99999999, "0.99999999"), (1.0, "1"), (100, "100"), (0.1 + 0.2, "0.30000000000000004")],
)
def test_a_limit_has_all_of_its_digits(value, text):
    assert exactly(value) == text


@given(st.floats(0, 100), st.floats(0, 100))
def test_no_figure_crosses_a_bound(value, bound):
    shown = float(within(value, [bound], 2))
    assert (shown > bound, shown < bound) == (value > bound, value < bound)
    assert abs(shown - value) <= 0.005 + 1e-12


def test_a_figure_has_no_more_digits_than_it_needs():
    assert within(99.996, (0, 100), 1) == "99.996"
    assert within(99.94, (0, 100), 1) == "99.9"
    assert within(100.0, (0, 100), 1) == "100.0"
    assert within(0.504, [0.5], 2) == "0.504"


@given(st.floats(-1, 1), st.floats(0, 1))
def test_a_figure_that_misses_what_it_is_to_reach_lies_below_it(value, least):
    if value < least - 1e-9:
        assert float(floored(value, least)) < least
    assert float(floored(value, least)) <= value + 1.1e-9


def test_as_many_digits_as_the_limit():
    assert floored(0.999999985, 0.99999999) == "0.99999998"
    assert floored(0.98999) == "0.9899"
    assert floored(0.99 - 1e-10, 0.99) == "0.9900"
    assert floored(float("nan")) == "nan"
