"""Reads TOML files into typed structs; an error names the line, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from numbers import Integral, Real
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from edgevit.decoding import LOCK
from edgevit.errors import InputError
from edgevit.likeness import nearest
from edgevit.resources import toml_names

T = TypeVar("T")

#: No profile or recipe is nearly as large; a larger file was named by mistake.
_LARGEST = 1 << 16
#: Each statement costs reading the file up to it; of a longer file, no line is named.
_MOST_LINES = 2000

#: How msgspec ends its messages: where in the file it was, as in ``- at `key` in `$.settings_of` ``.
_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`\Z")
_STEP = re.compile(r"\.(?P<name>[\w-]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_UNKNOWN_VALUE = re.compile(r"Invalid enum value '?(.*?)'?\Z", re.DOTALL)
_MISSING_KEY = re.compile(r"Object missing required field `(.*)`\Z")
_SYNTAX_PLACE = re.compile(r" \(at (line (?P<line>\d+), column \d+|end of document)\)\Z")


class FieldError(InputError, ValueError):
    """What a struct raises in ``__post_init__``: the value of ``field``, such as ``batch.max``, is wrong.

    ``remedy`` is what to do, where there is more to say than to correct it. It is a ValueError, too: msgspec adds
    the place to those alone.
    """

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.field = field


def unknown_value(field: str, value: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]]) -> FieldError:
    """Return the error of a ``value`` that is none of the ``known``; ``elsewhere`` is what others call some of them."""
    name = field.rpartition(".")[2]
    return FieldError(field, f"there is no '{value}' for {name}", nearest(value, known, elsewhere))


class _Statement(NamedTuple):
    """A statement of a TOML file: the lines that it begins and ends in, and the file up to its end."""

    line: int
    end: int
    so_far: dict[str, Any]


def read_named(kind: str, place: Path, name: str, type_: type[T]) -> T:
    """Read ``place``/``name``.toml, or the file itself where ``name`` is the path of a TOML file.

    ``kind`` is what to call it in messages, such as "target".

    Raises:
        InputError: if there is none, or it is not a valid ``type_``; the message names the file, the line and the key.

    """
    path = Path(name) if name.endswith(".toml") else place / f"{name}.toml"
    if not name.endswith(".toml") and name not in toml_names(place):
        raise InputError(f"there is no {kind} '{name}'", remedy=nearest(name, toml_names(place)))
    return read_file(kind, path, type_, remedy=f"correct it as in {place}")


def read_file(kind: str, path: Path, type_: type[T], *, remedy: str) -> T:
    """Read the TOML file at ``path``; ``remedy`` says where to look how it is written.

    Raises:
        InputError: if there is none, or it is not a valid ``type_``; the message names the file, the line and the key.

    """
    try:
        content = _read(path)
    except OSError as error:
        raise InputError(f"cannot read the {kind} {path}: {error.strerror}", remedy="check the path") from error
    try:
        with LOCK:
            return msgspec.toml.decode(content, type=type_)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a {kind}: it is no text in UTF-8", remedy="check the path") from error
    except msgspec.ValidationError as error:
        raise _explained(str(path), content.decode(), type_, error, remedy=remedy) from error
    except (msgspec.DecodeError, RecursionError) as error:  # the latter: brackets within brackets within...
        where, what = f"{path}, line {_syntax_line(content.decode(), str(error))}", _SYNTAX_PLACE.sub("", str(error))
        raise InputError(f"{where}: this is no TOML: {what}", remedy=remedy) from error


def revalidated(kind: str, value: object, type_: type[T], *, remedy: str) -> T:
    """Return ``value``, a struct that a program made, if a file could say the same; its constructor checks little.

    Raises:
        InputError: if not; the message names the field.

    """
    try:
        with LOCK:
            return msgspec.convert(msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_pythons_own), type_)
    except msgspec.ValidationError as error:
        raise _explained(f"the {kind}", "", type_, error, remedy=remedy) from error
    except (TypeError, ValueError, RecursionError) as error:  # what no file has: half of a character, a set of sets
        raise InputError(f"the {kind} cannot be used: {error}", remedy=remedy) from error


def _pythons_own(value: object) -> bool | int | float | str:
    """Return a number, a string or a bool of another library, such as numpy, as one of Python's."""
    from numpy import bool_  # known to none of Python's kinds

    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool_):
        return bool(value)
    raise TypeError(f"it has a {type(value).__name__} in it")


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST} bytes", remedy="check the path")
    return content


def _syntax_line(text: str, message: str) -> int:
    """Return the line that is no TOML; of what is not closed before the end, that where it begins."""
    match = _SYNTAX_PLACE.search(message)
    if match and match["line"]:
        return int(match["line"])
    return 1 + max((statement.end for statement in _statements(text)), default=0)


def _explained(where: str, text: str, type_: type, error: msgspec.ValidationError, *, remedy: str) -> InputError:
    """Return the error for people."""
    message = str(error)
    place = _PLACE.search(message)
    path = place["path"] if place else ""
    what, line = _PLACE.sub("", message), _line(text, type_, error, path)
    known = _known(inspect.type_info(type_), path)
    if isinstance(error.__cause__, FieldError) and error.__cause__.remedy:
        remedy = error.__cause__.remedy
    if match := _UNKNOWN_KEY.match(what):
        what, remedy = f"there is no key '{match[1]}'{_within(path)}", nearest(match[1], known)
    elif match := _UNKNOWN_VALUE.match(what):
        what, remedy = f"there is no '{match[1]}' for {_spoken(path)}", nearest(match[1], known)
    elif match := _MISSING_KEY.match(what):
        what = f"the key '{match[1]}' is missing{_within(path)}"
    elif not isinstance(error.__cause__, ValueError) and path:
        wrong = "this is not how it is written" if "matching regex" in what else f"{what[:1].lower()}{what[1:]}"
        what = f"{_spoken(path)}: {wrong}"
    return InputError(f"{where}, line {line}: {what}" if line else f"{where}: {what}", remedy=remedy)


def _spoken(path: str) -> str:
    return path.removeprefix(".").replace("[...]", "")


def _within(path: str) -> str:
    return f" in {_spoken(path)}" if path else ""


def _line(text: str, type_: type, error: msgspec.ValidationError, path: str) -> int | None:
    """Return the line that ``error`` is about; None where it is about the whole file.

    That is where the first statement begins with which the file so far has the key that contradicts others, or is
    wrong in the same way as the whole.
    """
    field = error.__cause__.field if isinstance(error.__cause__, FieldError) else ""
    if not path and _MISSING_KEY.match(str(error)):
        return None
    wanted = [*_steps(path), *_steps(f".{field}")]
    for statement in _statements(text):
        if _has(statement.so_far, wanted) if field else _fails(statement.so_far, type_, str(error)):
            return statement.line
    return None


def _statements(text: str) -> Iterator[_Statement]:
    """Yield the statements of a TOML file; a line ends one if all until there is a TOML file."""
    lines, begin = text.split("\n"), 0
    if len(lines) > _MOST_LINES:
        return
    for end in range(1, len(lines) + 1):
        try:
            so_far = msgspec.toml.decode("\n".join(lines[:end]))
        except (msgspec.DecodeError, RecursionError):
            continue
        yield _Statement(begin + 1, end, so_far)
        begin = end


def _has(data: Any, steps: Iterable[str | int]) -> bool:  # noqa: ANN401 - what a TOML file holds
    try:
        reduce(getitem, steps, data)
    except (LookupError, TypeError):
        return False
    return True


def _fails(data: dict[str, Any], type_: type, message: str) -> bool:
    try:
        with LOCK:
            msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _steps(path: str) -> Iterator[str | int]:
    """Yield the keys and positions in a path such as ``.editions[0].versions``."""
    for match in _STEP.finditer(path):
        if match["name"] or match["index"]:
            yield match["name"] or int(match["index"])


def _known(node: inspect.Type, path: str) -> list[str]:
    """Return the keys of the struct at ``path``, or the words that a value or key there may be."""
    nodes = [node]
    for match in _STEP.finditer(path):
        nodes = [inner for each in nodes for outer in _plain(each) for inner in _inner(outer, match["name"])]
    return list(dict.fromkeys(word for each in nodes for plain in _plain(each) for word in _words(plain)))


def _plain(node: inspect.Type) -> Iterator[inspect.Type]:
    """Yield the types that ``node`` may be: of ``X | None`` both."""
    if isinstance(node, inspect.UnionType):
        for each in node.types:
            yield from _plain(each)
    else:
        yield node.type if isinstance(node, inspect.Metadata) else node


def _inner(node: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    if isinstance(node, inspect.StructType):
        yield from (field.type for field in node.fields if field.encode_name == name)
    elif isinstance(node, inspect.DictType):
        yield node.value_type
    elif isinstance(node, inspect.VarTupleType | inspect.ListType):
        yield node.item_type


def _words(node: inspect.Type) -> Iterator[str]:
    if isinstance(node, inspect.StructType):
        yield from (field.encode_name for field in node.fields)
    elif isinstance(node, inspect.LiteralType):
        yield from (str(value) for value in node.values)
    elif isinstance(node, inspect.DictType):
        for plain in _plain(node.key_type):
            yield from _words(plain)
