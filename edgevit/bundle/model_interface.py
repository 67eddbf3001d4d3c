"""What a model file takes and gives, read without the engine and without onnx: names, types and shapes.

Numbers of fields and of types are those of onnx.proto; names of types in an IR are OpenVINO's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from xml.parsers import expat

from edgevit.bundle.model_files import LARGEST_IR, MAKE_AGAIN, field_text, fields_of, mapped, numbers_of
from edgevit.errors import BundleError

#: Numbers of onnx.proto's types, and OpenVINO's names, by NumPy's.
_OF_ONNX: Final[Mapping[int, str]] = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}
_OF_IR: Final[Mapping[str, str]] = {
    "f32": "float32",
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
}
_MOST_AXES = 16
_LARGEST_SIZE = 1 << 31


class TensorType(NamedTuple):
    """What goes into a model or comes out of it: its name, NumPy's name of its type, its shape; None is any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class ModelInterface(NamedTuple):
    """What a model takes and gives, in the order of its file."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]


def file_interface(path: Path) -> ModelInterface:
    """Return what the ONNX file or the IR ``path`` takes and gives.

    Raises:
        BundleError: if it is no such file, or has a type or a shape that no model of ours has.

    """
    try:
        return _of_ir(path) if path.suffix == ".xml" else _of_onnx(path)
    except ValueError as error:
        raise BundleError(f"{path} is not a readable model: {error}", remedy=MAKE_AGAIN) from error


def _of_onnx(path: Path) -> ModelInterface:
    graphs = [value for number, value in fields_of(mapped(path)) if number == 7]
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs")
    weights: set[str] = set()
    found: dict[int, list[memoryview]] = {11: [], 12: []}  # inputs, outputs
    for number, value in fields_of(graphs[0]):
        if number in found:
            found[number].append(value)
        elif number == 5:  # initializer, which may be listed as an input, too
            weights.update(field_text(word) for field, word in fields_of(value) if field == 8)
    inputs = tuple(each for each in map(_tensor, found[11]) if each.name not in weights)
    return ModelInterface(inputs, tuple(map(_tensor, found[12])))


def _tensor(message: memoryview) -> TensorType:
    """Return what a ValueInfoProto says."""
    name, kind = "", 0
    shape: tuple[int | None, ...] = ()
    for number, value in fields_of(message):
        if number == 1:
            name = field_text(value)
        elif number == 2:
            for field, tensor in fields_of(value):
                if field == 1:  # tensor_type
                    kind = next((each for where, each in numbers_of(tensor) if where == 1), 0)
                    shape = next((tuple(_sizes(part)) for where, part in fields_of(tensor) if where == 2), ())
    if kind not in _OF_ONNX:
        raise ValueError(f"'{name}' is of a type that no model has ({kind})")
    return TensorType(name, _OF_ONNX[kind], _checked(shape))


def _sizes(message: memoryview) -> Iterator[int | None]:
    for number, dimension in fields_of(message):
        if number == 1:
            yield next((value for field, value in numbers_of(dimension) if field == 1), None)


def _of_ir(path: Path) -> ModelInterface:
    if path.stat().st_size > LARGEST_IR:
        raise ValueError(f"it is larger than {LARGEST_IR >> 20} MiB, which no IR is")
    reader = _Layers()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.data
    try:
        parser.Parse(path.read_bytes(), True)  # noqa: FBT003 - there is no more
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(str(error)) from error
    return ModelInterface(tuple(reader.inputs), tuple(reader.outputs))


class _Layers:
    """Notes the parameters and results of an IR as its parser goes over it, and keeps nothing else."""

    def __init__(self) -> None:
        self.inputs: list[TensorType] = []
        self.outputs: list[TensorType] = []
        self._layer: dict[str, str] | None = None
        self._sizes: list[int | None] = []
        self._precision, self._names, self._text = "", "", ""

    def doctype(self, *_: object) -> None:
        raise ValueError("it declares a type of document, which no IR does")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "layer" and attributes.get("type") in ("Parameter", "Result"):
            self._layer, self._sizes, self._precision, self._names = attributes, [], "", ""
        elif self._layer is not None and tag == "port":
            self._precision = attributes.get("precision", "").lower().replace("fp", "f")
            self._names = attributes.get("names", "")
        self._text = ""

    def data(self, text: str) -> None:
        self._text = (self._text + text)[:32]

    def end(self, tag: str) -> None:
        layer = self._layer
        if layer is None:
            return
        if tag == "dim":
            size = int(self._text)
            self._sizes.append(None if size < 0 else size)
        if tag == "layer":
            self._layer = None
            given = self._names or layer.get("output_names") or layer.get("name", "").removesuffix("/sink_port_0")
            kept = self.inputs if layer.get("type") == "Parameter" else self.outputs
            if self._precision not in _OF_IR:
                raise ValueError(f"'{given}' is of a type that no model has ({self._precision})")
            # Names of one tensor are listed with commas, and a comma in a name has a backslash before it.
            name = re.split(r"(?<!\\),", given)[0].replace("\\,", ",")
            kept.append(TensorType(name, _OF_IR[self._precision], _checked(tuple(self._sizes))))


def _checked(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(shape) > _MOST_AXES or any(size is not None and not 0 < size < _LARGEST_SIZE for size in shape):
        raise ValueError("its shape is none that a model has")
    return shape
