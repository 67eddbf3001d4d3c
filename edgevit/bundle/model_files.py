"""What a model file would have an engine open or do beyond itself, read without the engine and without onnx.

An ONNX file can keep weights in other files, and an IR does; both can hold loops that never end. A bundle may come from
anywhere, so that this is looked at before an engine opens the file. Numbers of fields are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from edgevit.errors import BundleError

#: A ViT has neither branches nor loops: what has them may run for ever. Names are ONNX's, and OpenVINO's.
CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap", "TensorIterator"))

#: Bytes; the IR of a ViT-L has half a MiB.
LARGEST_IR = 64 << 20
_DEEPEST = 16  # graphs in graphs
_LARGEST_TAG = (1 << 32) - 1  # protobuf drops the bits above, and finds another field than was asked for
_ONE_BYTE = 0x7F  # the largest number that one byte holds; more have their highest bit set

MAKE_AGAIN = (
    "get it again from where it came, or make it again with 'edgevit export', or 'edgevit pack' if it is a pack"
)


class Contents(NamedTuple):
    """What is in a model file: the kinds of its nodes, and the names of other files that an engine would open."""

    kinds: frozenset[str]
    others: frozenset[str]


def check_model_file(path: Path, listed: frozenset[Path], content: memoryview | None = None) -> None:
    """Check that an engine that opens the model at ``path`` opens no file but those ``listed``, and comes to an end.

    Files that are no ONNX and no IR by their names are left to their engines; ``check_model_name`` sees to those that
    open them as such all the same. ``content`` is that of a file in a pack, which is read from the disk else.

    Raises:
        BundleError: if it would open another file, has branches or loops, or is cut short.

    """
    read = _READERS.get(path.suffix)
    if read is None:
        return
    contents = read(path, content)
    for name in sorted(contents.others):
        if path.parent / name not in listed:
            raise BundleError(
                f"{path} keeps weights in {name!r}, which is no file that the manifest lists", remedy=MAKE_AGAIN
            )
    if control := sorted(contents.kinds & CONTROL_FLOW):
        raise BundleError(f"{path} has branches or loops: {', '.join(control)}", remedy=MAKE_AGAIN)


def check_model_name(path: Path, backend: str, formats: Sequence[str]) -> None:
    """Check that what ``backend`` opens is of one of its ``formats``, so that ``check_model_file`` has looked at it.

    Raises:
        BundleError: if it has not.

    """
    if path.suffix not in formats:
        raise BundleError(
            f"{backend} would open {path} as a model, whose name does not end in {' or '.join(formats)}",
            remedy=MAKE_AGAIN,
        )


def contents_of_ir(path: Path, content: memoryview | None = None) -> Contents:
    """Return what is in an IR; its weights lie beside it, in a file of the same name.

    ``content`` is that of one in a pack; beside it there are no files but those that the manifest lists.

    Raises:
        BundleError: if it is larger than any, or no XML.

    """
    if (path.stat().st_size if content is None else len(content)) > LARGEST_IR:
        raise BundleError(f"{path} is larger than {LARGEST_IR >> 20} MiB, which no IR is", remedy=MAKE_AGAIN)
    kinds: set[str] = set()

    def note(name: str, attributes: list[str]) -> None:
        if name == "layer" and "type" in attributes[::2]:
            kinds.add(attributes[2 * attributes[::2].index("type") + 1])

    parser = expat.ParserCreate()
    parser.ordered_attributes = True  # names and values in turn: faster than a dictionary for each element
    parser.StartElementHandler = note
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(path.read_bytes() if content is None else bytes(content), True)  # noqa: FBT003 - there is no more
    except (expat.ExpatError, ValueError, LookupError) as error:  # of encodings, too
        raise BundleError(f"{path} is not a readable IR: {error}", remedy=MAKE_AGAIN) from error
    weights = path.with_suffix(".bin")
    return Contents(frozenset(kinds), frozenset([weights.name] if weights.is_symlink() or weights.exists() else []))


def contents_of_onnx(path: Path, content: memoryview | None = None) -> Contents:
    """Return what is in an ONNX file, sub-graphs and functions of its own included.

    ``content`` is that of one in a pack.

    Raises:
        BundleError: if it is no ONNX file, or is cut short.

    """
    kinds: set[str] = set()
    others: set[str] = set()
    try:
        _Walk(kinds, others).model(mapped(path) if content is None else content)
    except ValueError as error:  # an empty file, or a field that ends behind its end
        raise BundleError(f"{path} is not a readable ONNX file: {error}", remedy=MAKE_AGAIN) from error
    return Contents(frozenset(kinds), frozenset(others))


def metadata_of_onnx(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Raises:
        BundleError: if it is no ONNX file, or is cut short.

    """
    found: dict[str, str] = {}
    try:
        for number, value in fields_of(mapped(path)):
            if number == 14:  # metadata_props: keys and values
                entry = {field: field_text(word) for field, word in fields_of(value)}
                found[entry.get(1, "")] = entry.get(2, "")
    except ValueError as error:
        raise BundleError(f"{path} is not a readable ONNX file: {error}", remedy=MAKE_AGAIN) from error
    return found


def mapped(path: Path) -> memoryview:
    """Return the content of the file ``path``, which is read as it is looked at."""
    # Not closed: parts of it live as long as an error that was raised while they were read.
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it declares a type of document, which no IR does")


_READERS: dict[str, Callable[[Path, memoryview | None], Contents]] = {".onnx": contents_of_onnx, ".xml": contents_of_ir}
#: How the names of files end that are looked at before an engine opens them.
READABLE = tuple(_READERS)


class _Walk:
    """Goes over a ModelProto, and notes what it has."""

    def __init__(self, kinds: set[str], others: set[str]) -> None:
        self._kinds, self._others = kinds, others

    def model(self, message: memoryview) -> None:
        for number, value in fields_of(message):
            if number == 7:  # graph
                self._graph(value, 0)
            elif number == 25:  # functions
                for field, node in fields_of(value):
                    if field == 7:
                        self._node(node, 0)

    def _graph(self, message: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"graphs are nested more than {_DEEPEST} deep")
        for number, value in fields_of(message):
            if number == 1:
                self._node(value, depth)
            elif number == 5:  # initializer
                self._tensor(value)
            elif number == 15:  # sparse_initializer: values and indices
                self._tensors_in(value, (1, 2))

    def _node(self, message: memoryview, depth: int) -> None:
        for number, value in fields_of(message):
            if number == 4:
                self._kinds.add(field_text(value))
            elif number == 5:
                self._attribute(value, depth)

    def _attribute(self, message: memoryview, depth: int) -> None:
        for number, value in fields_of(message):
            if number in (5, 10):  # t, tensors
                self._tensor(value)
            elif number in (6, 11):  # g, graphs
                self._graph(value, depth + 1)
            elif number in (22, 23):  # sparse_tensor, sparse_tensors
                self._tensors_in(value, (1, 2))

    def _tensors_in(self, message: memoryview, numbers: tuple[int, ...]) -> None:
        for number, value in fields_of(message):
            if number in numbers:
                self._tensor(value)

    def _tensor(self, message: memoryview) -> None:
        for number, value in fields_of(message):
            if number == 13:  # external_data: keys and values
                entry = {field: field_text(word) for field, word in fields_of(value)}
                if entry.get(1) == "location":
                    self._others.add(entry.get(2, ""))


def field_text(value: memoryview) -> str:
    """Return a field as text."""
    return bytes(value).decode(errors="surrogateescape")


def fields_of(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field of a message that has a length; numbers of the others are passed over.

    That is protobuf's wire format. https://protobuf.dev/programming-guides/encoding/

    Raises:
        ValueError: if a field ends behind the message, or is of no kind that there is.

    """
    place, end = 0, len(message)
    while place < end:
        tag = message[place]
        place += 1
        if tag > _ONE_BYTE:
            tag, place = varint(message, place - 1)
            if tag > _LARGEST_TAG:
                raise ValueError("the number of a field is too large")
        kind = tag & 7
        if kind == 2:  # most are, and are short; there are thousands whenever a bundle is loaded
            if place < end and message[place] <= _ONE_BYTE:
                size = message[place]
                place += 1
            else:
                size, place = varint(message, place)
            stop = place + size
            if stop > end:
                raise ValueError("it is cut short")
            yield tag >> 3, message[place:stop]
            place = stop
        elif kind == 0:
            _, place = varint(message, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
            if place > end:
                raise ValueError("it is cut short")
        else:
            raise ValueError(f"there is no field of kind {kind}")


def numbers_of(message: memoryview) -> Iterator[tuple[int, int]]:
    """Yield number and value of each field of a message that is an integer; the others are passed over.

    Raises:
        ValueError: as ``fields_of``.

    """
    place, end = 0, len(message)
    while place < end:
        tag, place = varint(message, place)
        if tag & 7 == 0:
            value, place = varint(message, place)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 2:
            size, place = varint(message, place)
        if size is None or place + size > end:
            raise ValueError("it is cut short, or has a field of no kind that there is")
        place += size


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the integer at ``place``, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("it is cut short")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte <= _ONE_BYTE:
            return value, place
    raise ValueError("a number in it is too long")
