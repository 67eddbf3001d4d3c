"""Files of MATLAB's as SciPy writes them; and damaged ones, which end in one error."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import io as scipy_io

from edgevit.data.mat_file import MatError, read_structs

FIELDS = ("ILSVRC2012_ID", "WNID")


def content(rows, *, compressed, name="synsets", kinds=("ILSVRC2012_ID", "WNID", "words")):
    stream = io.BytesIO()
    array = np.array(rows, dtype=[(kind, "O") for kind in kinds]).reshape(-1, 1)
    scipy_io.savemat(stream, {"other": np.arange(5), name: array}, do_compression=compressed)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False, width=32),
            st.text(st.characters(min_codepoint=33, max_codepoint=0xFFFD, exclude_categories=["Cs"]), min_size=1),
            st.just("x"),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_what_scipy_writes_is_read(compressed, rows):
    found = read_structs(content(rows, compressed=compressed), "synsets", FIELDS)
    assert [(each["ILSVRC2012_ID"], each["WNID"]) for each in found] == [(number, text) for number, text, _ in rows]


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_end_in_one_error(compressed):
    whole = content([(i, f"n{i:08}", "a word") for i in range(20)], compressed=compressed)
    random = np.random.default_rng(0)
    for _ in range(3000):
        damaged = bytearray(whole[: random.integers(len(whole) + 1)])
        for place in random.integers(len(damaged) or 1, size=random.integers(6)):
            if len(damaged):
                damaged[place] = random.integers(256)
        with contextlib.suppress(MatError):
            read_structs(bytes(damaged), "synsets", FIELDS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "Level 5"),
        (b"MATLAB 5.0" + b" " * 116 + b"IM", "no array called"),
        (content([(1, "a", "b")], compressed=False, name="else"), "no array called"),
        (content([(1, "a")], compressed=False, kinds=("ILSVRC2012_ID", "id")), "no WNID"),
        (content([([1, 2], "a", "b")], compressed=False), "neither"),
    ],
)
def test_what_is_not_there_is_said(given, said):
    with pytest.raises(MatError, match=said):
        read_structs(given, "synsets", FIELDS)


def test_a_file_that_unfolds_to_far_more_is_refused():
    stream = io.BytesIO()
    scipy_io.savemat(stream, {"synsets": np.zeros((9000, 1000))}, do_compression=True)
    with pytest.raises(MatError, match="too large"):
        read_structs(stream.getvalue(), "synsets", FIELDS)
