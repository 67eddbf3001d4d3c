"""One place reads JSON, and one error says what is wrong with it."""

import ast
import json
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_code import PACKAGE, called, each_room, tree

from edgevit.errors import InputError
from edgevit.json import MOST_BYTES, MOST_DEPTH, JSONError, decode, read

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Even(msgspec.Struct):
    number: int

    def __post_init__(self):
        if self.number % 2:
            raise InputError(f"{self.number} is odd", remedy="give an even number")


@given(VALUES)
def test_it_reads_what_pythons_own_library_writes(value):
    assert decode(json.dumps(value), object) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode(), object) == value


@given(st.binary(max_size=200))
def test_whatever_bytes_say_it_is_read_or_refused(content):
    try:
        decode(content, object)
    except JSONError:
        return
    json.loads(content)


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}"), ('[{"a]":', "}]")])
def test_brackets_are_nested_only_so_deep(brackets):
    opening, closing = brackets
    levels = opening.count("[") + opening.count("{")

    def nested(times):
        return opening * times + "1" + closing * times

    decode(nested(MOST_DEPTH // levels), object)
    with pytest.raises(JSONError, match=f"more than {MOST_DEPTH} deep"):
        decode(nested(MOST_DEPTH // levels + 1), object)
    with pytest.raises(JSONError):
        decode(nested(100_000), object)


def test_brackets_in_strings_are_not_counted():
    text = '"[{' * 1 + "[{" * 1000 + r"\"[[\\" + '"'
    assert decode(f'{{"a": {text}}}', object)["a"].count("[") == 1003
    assert len(decode(json.dumps([[]] * 1000), object)) == 1000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated"),
        (b'{"number": 2', "truncated"),
        (b'{"number": "2"}', r"`\$.number`"),
        (b'{"number": 3}', "3 is odd"),
        (b"\xff\xfe{", "malformed"),
        (b'"\xff"', "utf-8"),
        ("\ud800", "surrogates"),
        (b"NaN", "malformed"),
    ],
)
def test_what_is_wrong_is_said(content, said):
    kind = str if content == b'"\xff"' else Even
    with pytest.raises(JSONError, match=said):
        decode(content, kind)


def test_a_file_is_read_to_a_bound(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    assert read(path, list[int]) == [1]
    path.write_bytes(b" " * MOST_BYTES + b"1")
    with pytest.raises(JSONError, match="too large"):
        read(path, int)
    path.write_bytes(b"[1, 2]")
    with pytest.raises(JSONError, match="more than 5 bytes"):
        read(path, list[int], most_bytes=5)
    assert read(path, list[int], most_bytes=6) == [1, 2]


def test_what_is_no_file_is_said_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "not a file"),
        (tmp_path / "pipe", "not a file"),
    ):
        with pytest.raises(JSONError, match=said):
            read(path, object)


@each_room
def test_nothing_else_reads_json(paths):
    # What is sent to a board as text runs there before anything is installed.
    allowed = {PACKAGE / name for name in ("json.py", "hosts/board.py", "hosts/supervisor.py")}
    reads = ("json.load", "json.loads", "msgspec.json.decode", "msgspec.json.Decoder")
    for path in set(paths) - allowed:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "decode", "Decoder"):
                assert ast.unparse(node) not in reads, called(path)
