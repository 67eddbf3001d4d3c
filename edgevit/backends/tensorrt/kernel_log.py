"""Reads what TensorRT tells of its kernels and of the ONNX nodes that they came from.

With ``ProfilingVerbosity.DETAILED`` and a logger that takes everything, TensorRT-RTX lists each kernel as it builds,
without a GPU; TensorRT's own listing comes from the engine's inspector, as JSON, where there is a GPU. Which operator a
node is, both say when they parse the ONNX file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgevit.errors import BundleError
from edgevit.json import JSONError, decode

#: As TensorRT and its parser call types, and as the rest of EdgeViT does.
_TYPES = {
    "BF16": "bfloat16",
    "BFLOAT16": "bfloat16",
    "BOOL": "bool",
    "E4M3": "float8",
    "FLOAT": "float32",
    "FP16": "float16",
    "FP32": "float32",
    "FP8": "float8",
    "HALF": "float16",
    "INT32": "int32",
    "INT4": "int4",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
}
_KERNEL = "Name: "
_CONSTANT = "Importing initializer: "
_NODE = re.compile(r"(?P<name>.+) \[(?P<operator>\w+)\] (?P<side>inputs|outputs): (?P<values>.*)")
_VALUE = re.compile(r"\[(?P<name>\S+) -> \((?P<shape>[\d, -]*)\)\[(?P<type>\w+)\]\]")
_TENSOR = re.compile(r"Dimensions: \[(?P<shape>[\d,-]*)\][^}]*?Datatype: (?P<type>\w+)")
#: Names of nodes may have brackets; what separates them is a control character, or nothing.
_ORIGIN = re.compile(r"\[ONNX Layer: (.+?)\](?=\[ONNX Layer: |[\x1e\x1f]|\s*\Z)")


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a node or kernel takes or gives; a dimension that is not fixed is -1."""

    type: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return the number of its values."""
        return abs(math.prod(self.shape))


@dataclass(eq=False, slots=True)
class ParsedValue:
    """What nodes of the ONNX file take or give, as far as the parser tells; it answers as onnx-ir's values do."""

    name: str
    tensor: Tensor
    constant: bool = False
    maker: ParsedNode | None = field(default=None, repr=False)
    users: list[ParsedNode] = field(default_factory=list, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes; -1 where one is not fixed."""
        return self.tensor.shape

    @property
    def const_value(self) -> Tensor | None:
        """What it is, if the file fixes that or it can be computed beforehand."""
        return self.tensor if self.constant else None

    def is_graph_input(self) -> bool:
        """Say whether it is given to the model."""
        return self.maker is None and not self.constant

    def producer(self) -> ParsedNode | None:
        """Return the node that computes it."""
        return self.maker

    def consumers(self) -> Sequence[ParsedNode]:
        """Return the nodes that take it."""
        return self.users


@dataclass(eq=False, slots=True)
class ParsedNode:
    """A node of the ONNX file, as the parser saw it; it answers as onnx-ir's nodes do."""

    name: str
    op_type: str
    inputs: tuple[ParsedValue, ...] = ()
    outputs: tuple[ParsedValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A kernel as TensorRT lists it: with the constants that it holds, and the names of the nodes it came from."""

    name: str
    layer_type: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]


def parse_graph(lines: Iterable[str]) -> dict[str, ParsedNode]:
    """Return the nodes of the ONNX file that lines of a verbose build log tell of, by name in the file's order."""
    nodes: dict[str, ParsedNode] = {}
    values: dict[str, ParsedValue] = {}
    constants = set()
    for line in lines:
        if line.startswith(_CONSTANT):
            constants.add(line.removeprefix(_CONSTANT))
        found = _NODE.fullmatch(line.rstrip().removesuffix(","))
        if found is None:
            continue
        node = nodes.setdefault(found["name"], ParsedNode(found["name"], found["operator"]))
        side = tuple(_value(each, values) for each in _VALUE.finditer(found["values"]))
        if found["side"] == "inputs":
            node.inputs = side
        else:
            node.outputs = side
    _link(nodes.values())
    for value in values.values():
        value.constant = value.name in constants
    for node in nodes.values():
        if all(value.constant for value in node.inputs):
            for value in node.outputs:
                value.constant = True
    return nodes


def _value(found: re.Match[str], values: dict[str, ParsedValue]) -> ParsedValue:
    """Return the value that ``found`` tells of, one of ``values``; what is told of it last counts."""
    tensor = Tensor(_type(found["type"]), _shape(found["shape"]))
    value = values.setdefault(found["name"], ParsedValue(found["name"], tensor))
    value.tensor = tensor
    return value


def _link(nodes: Iterable[ParsedNode]) -> None:
    """Tell each value which node computes it, and which take it."""
    for node in nodes:
        for value in node.outputs:
            value.maker = node
        for value in dict.fromkeys(node.inputs):
            value.users.append(node)


def parse_kernels(lines: Iterable[str]) -> list[Listed]:
    """Return the kernels that TensorRT-RTX's detailed build log lists, in the order in which they run."""
    return [_parse_kernel(line) for line in lines if line.startswith(_KERNEL)]


def _parse_kernel(line: str) -> Listed:
    head, _, rest = line.partition(", Inputs: [")
    before, _, after = rest.partition("], Outputs: [")
    inputs, _, constants = before.partition("], Constants: [")
    outputs, _, tail = after.partition("], TacticName: ")
    name, _, layer_type = head.removeprefix(_KERNEL).partition(", LayerType: ")
    return Listed(
        name,
        layer_type,
        _tensors(inputs),
        _tensors(constants),
        _tensors(outputs),
        _origins(tail.partition("Metadata: ")[2]),
    )


def parse_inspection(text: str) -> list[Listed]:
    """Return the kernels that an engine's inspector tells of, as JSON.

    Raises:
        BundleError: if it is not that, or the engine was built without detailed names.

    """
    try:
        layers = decode(text, dict[str, Any])["Layers"]
        return [_inspected(layer) for layer in layers]
    except (JSONError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            "TensorRT's inspector does not tell what the engine's kernels are",
            remedy="build this variant again: EdgeViT's engines keep the details",
        ) from error


def _inspected(layer: Any) -> Listed:  # noqa: ANN401 - whatever JSON gives; what does not fit raises
    inputs, constants, outputs = (
        tuple(Tensor(_described_type(each), tuple(each["Dimensions"])) for each in layer.get(side, ()))
        for side in ("Inputs", "Constants", "Outputs")
    )
    return Listed(layer["Name"], layer["LayerType"], inputs, constants, outputs, _origins(layer.get("Metadata", "")))


def _described_type(tensor: Any) -> str:  # noqa: ANN401
    """Return a tensor's type from a field of its own (TensorRT 11), or one that may also tell of its format."""
    text = str(tensor.get("Datatype") or tensor.get("DataType") or tensor["Format/Datatype"])
    words = (_TYPES.get(word.upper()) for word in re.findall(r"\w+", text))
    return next((word for word in words if word is not None), text.lower())


def _origins(metadata: str) -> tuple[str, ...]:
    return tuple(_ORIGIN.findall(metadata))


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(_each_tensor(text))


def _each_tensor(text: str) -> Iterator[Tensor]:
    for found in _TENSOR.finditer(text):
        yield Tensor(_type(found["type"]), _shape(found["shape"]))


def _type(text: str) -> str:
    return _TYPES.get(text.upper(), text.lower())


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size.strip())
