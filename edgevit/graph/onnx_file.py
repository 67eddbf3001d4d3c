"""Read an ONNX file that others have exported; it may come from anywhere, so nothing is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.version_converter
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.files import sha256_of
from edgevit.graph.metadata import LARGEST_FILE, OPSET
from edgevit.graph.passes.unfuse import CONTRIB
from edgevit.graph.standard_form import standard_form

_STANDARD_DOMAINS = ("", "ai.onnx")
#: A ViT has neither; a hostile file could run for ever in one.
_LOOPS = frozenset(("Loop", "Scan", "SequenceMap"))
_CONTROL = _LOOPS | {"If"}
_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
_LAYER_NORM_SINCE = 17
_QUANTIZED = frozenset(
    ("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
     "QuantizeLinear")
)  # fmt: skip
#: What onnxruntime's names of such operators have in them: QAttention, MatMulNBits, DynamicQuantizeMatMul.
_QUANTIZED_WORDS = ("QLinear", "QAttention", "QGemm", "QOrdered", "Quantize", "NBits", "Integer", "Bnb4", "QMoE")
#: What to do about a file that is damaged.
AGAIN = "check that it was copied whole, or export it again"
_STANDARD_ONLY = "export it again with torch.onnx.export, without onnxruntime's optimisations and without quantization"

#: What onnx raises on damaged files.
_DAMAGE = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, DecodeError, ValueError, TypeError,
           RuntimeError, OverflowError, OSError)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """An ONNX file: its ``path``, and the float32 model in it, with all its weights.

    ``sha256`` is the file's, or, where weights lie in other files, that of the SHA-256 of all of them in the order of
    their names. ``producer`` says what wrote it, ``notes`` what was done to it to be standard and float32.
    ``floats`` are the other types of floats that it had, such as float16.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str
    producer: str
    notes: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()


def read_onnx(path: Path) -> OnnxFile:
    """Return the model at ``path`` in float32: standard operators only, those of an opset before 20 converted to it.

    Raises:
        GraphError: if there is none, it is damaged or too large, keeps weights outside its folder, is quantized, or has
            operators that no ViT needs, or that are not ONNX's own and have no standard form.
        InputError: if finding that form takes more memory or time than the file's size explains.

    """
    if not path.is_file():
        raise GraphError(f"there is no file {path}", remedy="check the path")
    model = _parse(path)
    _check_operators(model, path)
    tensors = list(_tensors(model.graph))
    others = _check_external(tensors, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        _check_sizes(tensors, path)
        standard = standard_form(model)
        current = standard.model
        _check_standard(current, path)
        if _opset(current) < OPSET:
            current = onnx.version_converter.convert_version(current, OPSET)
    except (*_DAMAGE, onnx.version_converter.ConvertError) as error:
        raise GraphError(
            f"{path} cannot be read, or converted to opset {OPSET}: {_first_line(error)}", remedy=AGAIN
        ) from error
    return OnnxFile(path, current, _sha256(path, others), _producer(model), standard.notes, standard.floats)


def _parse(path: Path) -> onnx.ModelProto:
    if path.stat().st_size > LARGEST_FILE:
        raise GraphError(f"{path} is larger than 2 GiB, which no ONNX file can be", remedy="use a smaller model")
    try:
        model = onnx.load(path, load_external_data=False)
        early = list(_layer_norms_before_their_opset(model))
        if early:
            for node in early:  # for which the checker knows no operator
                node.domain = CONTRIB
            onnx.checker.check_model(model)
        else:
            onnx.checker.check_model(str(path))
    except _DAMAGE as error:
        raise GraphError(f"{path} is not a valid ONNX model: {_first_line(error)}", remedy=AGAIN) from error
    _check_words(model, path)
    return model


def _layer_norms_before_their_opset(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the LayerNormalizations that onnxruntime's optimisations write under ONNX's own name before opset 17."""
    opset = _opset(model)
    return (node for node in model.graph.node if node.op_type == "LayerNormalization" and opset < _LAYER_NORM_SINCE)


def _check_words(message: Message, path: Path) -> None:
    """Check that all strings are UTF-8, as ONNX asks for, and all types of tensors are ones that there are.

    protobuf gives bytes for a string that is not, which is found wherever that is used, else.
    """
    for field, value in message.ListFields():
        values = value if _repeated(field) else [value]
        if field.type == FieldDescriptor.TYPE_STRING:
            if any(isinstance(word, bytes) for word in values):
                raise GraphError(f"{path} has a {field.name} that is not UTF-8", remedy=AGAIN)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in values:
                _check_words(each, path)
        elif field.name in ("data_type", "elem_type") and value not in onnx.TensorProto.DataType.values():
            raise GraphError(f"{path} has a tensor of type {value}, which there is not", remedy=AGAIN)


def _repeated(field: FieldDescriptor) -> bool:
    return bool(getattr(field, "is_repeated", False) or getattr(field, "label", 1) == 3)  # by protobuf's version


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    if model.functions:
        raise GraphError(
            f"{path} defines operators of its own, such as {shown(model.functions[0].name)}",
            remedy="write them out with onnx.inliner.inline_local_functions, or export it again with a newer torch",
        )
    nodes = list(_nodes(model.graph))
    if quantized := {node.op_type for node in nodes if _is_quantized(node)}:
        raise GraphError(
            f"{path} is quantized already: it has {_some(quantized)}",
            remedy="give the float32 model; EdgeViT quantizes it",
        )
    _refuse_control({node.op_type for node in nodes} & _LOOPS, path)
    if model.graph.sparse_initializer:
        raise GraphError(f"{path} has sparse weights", remedy="export it again with dense ones")


def _is_quantized(node: onnx.NodeProto) -> bool:
    """Say whether ``node`` is of a quantized model, as ONNX and onnxruntime name its operators."""
    ours = node.domain not in _STANDARD_DOMAINS and any(word in node.op_type for word in _QUANTIZED_WORDS)
    return node.op_type in _QUANTIZED or ours


def _check_standard(model: onnx.ModelProto, path: Path) -> None:
    """Check what ``standard_form`` could not do away with."""
    nodes = list(model.graph.node)
    custom = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD_DOMAINS}
    if custom:
        raise GraphError(f"{path} has operators that are not ONNX's own: {_some(custom)}", remedy=_STANDARD_ONLY)
    operators = {node.op_type for node in nodes}
    _refuse_control(operators & _CONTROL, path)
    random = operators & _RANDOM
    if any(_drops_out(node, model.graph) for node in nodes):
        random.add("Dropout")
    if random:
        raise GraphError(
            f"{path} draws random numbers: {_some(random)}", remedy="export it again without what is random in it"
        )


def _drops_out(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Say whether ``node`` is a Dropout in training mode, as far as is known, whose ratio is not known to be 0."""
    if node.op_type != "Dropout" or len(node.input) < 3:  # without a third input it is not
        return False
    ratio, training = (_constant(name, graph) for name in node.input[1:3])
    return training is not None and bool(training.any()) and (ratio is None or bool(ratio.any()))


def _constant(name: str, graph: onnx.GraphProto) -> NDArray[np.generic] | None:
    """Return the values of a constant tensor; None if it is not known to be one."""
    tensors = [tensor for tensor in graph.initializer if tensor.name == name]
    made = (node for node in graph.node if node.op_type == "Constant" and name in node.output)
    tensors += [attribute.t for node in made for attribute in node.attribute if attribute.name == "value"]
    return onnx.numpy_helper.to_array(tensors[0]) if tensors else None


def _refuse_control(found: set[str], path: Path) -> None:
    if found:
        raise GraphError(
            f"{path} has branches or loops, which a ViT needs none of: {_some(found)}",
            remedy="export it again with torch.onnx.export(..., dynamo=True)",
        )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield all nodes of a graph, and of the graphs in them."""
    for node in graph.node:
        yield node
        for inner in _inner(node):
            yield from _nodes(inner)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors of a graph, and of the graphs in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))
        for inner in _inner(node):
            yield from _tensors(inner)


def _check_external(tensors: Iterable[onnx.TensorProto], path: Path) -> list[Path]:
    """Return the files beside ``path`` that tensors lie in; they must really be there, and below its folder."""
    names = {
        entry.value
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder, found = path.parent.resolve(), []
    for name in sorted(names):
        file = folder / name
        if not name or "\0" in name or not file.is_file() or file.resolve() != file or folder not in file.parents:
            raise GraphError(
                f"{path} keeps weights in '{shown(name)}', which is no file in its folder",
                remedy="put the file itself there, not a link to it, or save the model as one ONNX file",
            )
        found.append(file)
    if sum(file.stat().st_size for file in [path, *found]) > LARGEST_FILE:
        raise GraphError(f"{path} has more than 2 GiB of weights, one ONNX file holds 2", remedy="use a smaller model")
    return found


def _check_sizes(tensors: Iterable[onnx.TensorProto], path: Path) -> None:
    """Check that each tensor has the bytes that its shape takes."""
    total = 0
    for tensor in tensors:
        expected = int(np.prod([int(size) for size in tensor.dims], dtype=object))
        if (
            min(tensor.dims, default=0) < 0
            or expected > LARGEST_FILE
            or onnx.numpy_helper.to_array(tensor).size != expected
        ):
            raise GraphError(f"the constant '{shown(tensor.name)}' of {path} is damaged", remedy=AGAIN)
        total += tensor.ByteSize()
    if total > LARGEST_FILE:
        raise GraphError(f"{path} has more than 2 GiB of weights, one ONNX file holds 2", remedy="use a smaller model")


def _opset(model: onnx.ModelProto) -> int:
    return max((one.version for one in model.opset_import if one.domain in _STANDARD_DOMAINS), default=0)


def _sha256(path: Path, others: Iterable[Path]) -> str:
    digests = [sha256_of(file) for file in (path, *others)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _producer(model: onnx.ModelProto) -> str:
    words = (model.producer_name, model.producer_version, f"opset {_opset(model)}")
    return " ".join(shown(word) for word in words if word)


_SHOWN = 40


def shown(name: str, longest: int = _SHOWN) -> str:
    """Return a name from a file as it can be shown to people: short, and without what a terminal would obey."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= longest else f"{plain[: longest - 3]}..."


def _some(names: Iterable[str], most: int = 4) -> str:
    listed = sorted(shown(name) for name in names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _first_line(error: Exception) -> str:
    return shown_line(str(error))


def shown_line(text: str) -> str:
    """Return the first line of an engine's message."""
    line = (text.strip().splitlines() or ["it is damaged"])[0]
    return "".join(letter if letter.isprintable() else "?" for letter in line[:300])
