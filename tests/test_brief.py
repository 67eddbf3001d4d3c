import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.brief import in_brief


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None"),
        (2.5, "2.5"),
        (True, "True"),
        ("int9", "'int9'"),
        ((1, 2, 3), "(1, 2, 3)"),
        (object(), "an object of type object"),
        (np.zeros(9), "an object of type ndarray"),
        (10**1000, "an enormous int"),
        (b"x" * 5000, "5000 bytes"),
    ],
)
def test_what_is_short_is_shown_and_of_the_rest_what_it_is(value, said):
    assert in_brief(value) == said


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.text()),
    )
)
def test_it_is_one_line_of_bounded_length(value):
    found = in_brief(value)
    assert len(found) < 4000
    assert "\n" not in found
