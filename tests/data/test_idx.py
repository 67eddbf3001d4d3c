"""The IDX parser on sound and hostile bytes."""

import gzip
import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgevit.data.idx import parse_idx, read_idx
from edgevit.errors import DataError


def idx(array, kind=0x08):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def parse(content):
    return parse_idx(io.BytesIO(content), name="x.idx")


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4)))
def test_round_trip(array):
    assert np.array_equal(parse(idx(array)), array)


@given(st.binary(max_size=64))
def test_any_bytes_end_in_an_array_or_a_data_error(content):
    try:
        array = parse(content)
    except DataError:
        return
    assert idx(array) == content


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "begin"),
        (b"\x1f\x8b\x08\x00", "begin"),
        (idx(np.zeros(3, np.uint8), kind=0x0D), "type"),
        (struct.pack(">BBBB", 0, 0, 8, 200), "dimensions"),
        (struct.pack(">BBBBI", 0, 0, 8, 3, 28), "header"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "announces"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], "5 of 6"),
        (idx(np.zeros((2, 3), np.uint8)) + b"\0", "more than the 6"),
    ],
)
def test_what_is_wrong_is_said(content, what):
    with pytest.raises(DataError, match=what) as caught:
        parse(content)
    assert "x.idx" in caught.value.remedy


def test_gzip_that_is_damaged(tmp_path):
    path = tmp_path / "x.gz"
    whole = gzip.compress(idx(np.arange(200, dtype=np.uint8)))
    path.write_bytes(whole)
    assert len(read_idx(path)) == 200
    flipped = bytearray(whole)
    flipped[-6] ^= 0xFF  # in the checksum
    for content in (b"no gzip", whole[:-12], whole[:40], bytes(flipped), b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.gz"):
            read_idx(path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(10, np.uint8)) + bytes(50 << 20)))
    with pytest.raises(DataError, match="more than the 10"):
        read_idx(path)
