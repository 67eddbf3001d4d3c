"""A wrong file is explained with its line: against the line that a test put the mistake in."""

from contextlib import suppress
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.toml import FieldError, read_named


class Inner(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    least: Annotated[int, msgspec.Meta(ge=1)] = 1
    most: int = 9

    def __post_init__(self):
        if self.least > self.most:
            raise ValueError("nothing between them")


class Outer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    colour: Literal["red", "green", "blue"] = "red"
    size: Annotated[str, msgspec.Meta(pattern=r"\A\d+mm\Z")] = "1mm"
    inner: Inner | None = None
    parts: tuple[Inner, ...] = ()
    words: dict[Literal["one", "two"], dict[str, str]] = {}

    def __post_init__(self):
        if self.name == "grass" and self.colour != "green":
            raise FieldError("colour", "grass is green")
        if len(self.parts) > 1 and self.parts[1].most > 100:
            raise FieldError("parts[1].most", "so many parts")


TEXT = '''\
# A comment, then an array over several lines.
name = "grass"

colour = "green"  # name = "no"
size = "3mm"
inner = { least = 2, most = 3 }
words.one = { a = "colour = 3" }

[words.two]
text = """
colour = "pink"
[parts]
"""

[[parts]]
least = 3

[[parts]]
least = 4
most = 5
'''
LINES = TEXT.split("\n")


def reading(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_named("thing", tmp_path / "nowhere", str(path), Outer)


def test_the_text_is_right(tmp_path):
    read = reading(tmp_path, TEXT)
    assert (read.name, read.parts[1].most, read.words["two"]["text"].count("\n")) == ("grass", 5, 2)


@pytest.mark.parametrize(
    ("line", "wrong", "problem", "remedy"),
    [
        (4, 'color = "green"', "there is no key 'color'", "use colour"),
        (4, 'colour = "gren"', "there is no 'gren' for colour", "use green"),
        (4, 'colour = "blue"', "grass is green", "correct it"),
        (4, "colour = 3", "colour: expected `str`, got `int`", "correct it"),
        (5, 'size = "3cm"', "size: this is not how it is written", "correct it"),
        (6, "inner = { leest = 2 }", "there is no key 'leest' in inner", "use least"),
        (6, "inner = { least = 0 }", "inner.least: expected `int` >= 1", "correct it"),
        (6, "inner = { least = 12 }", "nothing between them", "correct it"),
        (7, 'words.onee = { a = "b" }', "there is no 'onee' for words", "use one"),
        (7, "words.one = { a = 1 }", "words: expected `str`, got `int`", "correct it"),
        (10, 'text = 3\nmore = """', "words: expected `str`, got `int`", "correct it"),
        (16, 'least = "3"', "parts[0].least: expected `int`, got `str`", "correct it"),
        (16, "moist = 3", "there is no key 'moist' in parts[0]", "use most"),
        (20, "most = 3", "nothing between them", "correct it"),
        (20, "most = 101", "so many parts", "correct it"),
        (5, 'size = "3mm', "this is no TOML", "correct it"),
        (5, "size = ", "this is no TOML", "correct it"),
        (5, 'name = "twice"', "this is no TOML: Cannot overwrite", "correct it"),
        (9, "[words", "this is no TOML", "correct it"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, line, wrong, problem, remedy):
    text = "\n".join([*LINES[: line - 1], wrong, *LINES[line:]])
    with pytest.raises(InputError) as caught:
        reading(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'own.toml'}, line {line}: {problem}")
    assert caught.value.remedy.startswith(remedy)


def test_what_is_not_closed_is_named_where_it_begins(tmp_path):
    with pytest.raises(InputError, match="line 2: this is no TOML"):
        reading(tmp_path, 'name = "x"\ncolour = """\nred\n')


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(InputError, match="toml: the key 'name' is missing"):
        reading(tmp_path, 'colour = "red"')


@given(line=st.integers(1, len(LINES) - 1), before=st.integers(0, 5), key=st.from_regex(r"\A[a-z]{3,9}\Z"))
def test_an_unknown_key_is_found_wherever_it_stands(tmp_path_factory, line, before, key):
    """A line between statements is put in anywhere; comments before it move it down."""
    assume(key not in {*Outer.__struct_fields__, *Inner.__struct_fields__})
    assume(line not in (11, 12, 13, 14))  # within a text
    text = "\n".join([*["# no key"] * before, *LINES[: line - 1], f"{key} = [ # a comment\n'a']", *LINES[line - 1 :]])
    with pytest.raises(InputError) as caught:
        reading(tmp_path_factory.getbasetemp(), text)
    problem = "words: expected `str`, got `array`" if line in (10, 15) else f"there is no key '{key}'"
    assert f"own.toml, line {line + before}: {problem}" in caught.value.message


@given(content=st.binary(max_size=300) | st.text(alphabet='namecolur ="[]{}.\n', max_size=120).map(str.encode))
def test_no_content_crashes_the_reader(tmp_path_factory, content):
    with suppress(InputError):
        reading(tmp_path_factory.getbasetemp(), content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "no text in UTF-8"),
        (b"name = 3\n" + b"#" * (1 << 16), "larger than 65536 bytes"),
        (b"name = " + b"[" * 9000, "this is no TOML"),
        (b"\n" * 30000 + b"name = 3", "toml: name: expected `str`"),  # of so many lines none is named
    ],
)
def test_hostile_files(tmp_path, content, problem):
    with pytest.raises(InputError, match=problem):
        reading(tmp_path, content)
