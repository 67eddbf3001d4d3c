"""FP16: a typed ONNX file, with what does not fit float16 kept in float32.

The range of float16 ends at 65504, and below 6e-5 its numbers lose one bit after another. Which values come near
either end is found by running the model on real images (``float16.scan``); the nodes that hold them stay float32.
LayerNormalization stays one node: taken apart, its squares overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.errors import BundleError, GraphError
from edgevit.graph.editing import add_constant
from edgevit.graph.nested import has_graph
from edgevit.graph.node_facts import Role, role_of
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.json_file import JSONFile
from edgevit.quantization.engine_file import Emitted, save_for_engine
from edgevit.quantization.plan import check_sha256

#: Operators that stay float32 whatever they are given: they state their type, or take none but float32 somewhere.
_FLOAT32_ONLY = frozenset(("Cast", "CastLike", "Range", "Resize"))
_REMEDY = "make it again with `edgevit quantize --precision fp16`"


class Float16Plan(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which nodes of the float32 ONNX file with ``model_sha256`` stay float32: by name, with the reason.

    ``images`` and ``images_sha256`` say on what that was found.
    """

    what = "plan of FP16"
    schema = 1
    remedy = _REMEDY

    schema_version: int = 1
    model_sha256: str
    images: int
    images_sha256: str
    float32_nodes: dict[str, str]


def emit_float16(model: ir.Model, sha256: str, plan: Float16Plan, path: Path) -> Emitted:
    """Write the float32 ``model`` to ``path`` with float16 weights and arithmetic, but for the plan's nodes.

    ``model``, which is used up, was read from the file with that SHA-256.

    The model's inputs and outputs stay float32: Cast nodes stand behind and before them, as wherever float16 meets
    float32. The file is about half the size.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if a node holds a graph of its own.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    check_sha256("this plan of FP16", plan.model_sha256, sha256)
    note_types(model)
    graph = model.graph
    names = node_names(graph)
    unknown = plan.float32_nodes.keys() - set(names.values())
    if unknown:
        raise BundleError(f"the plan's '{min(unknown)}' is not in the model", remedy=_REMEDY)
    retype(graph, {node for node in graph if names[node] in plan.float32_nodes})
    return save_for_engine(model, path)


def note_types(model: ir.Model) -> None:
    """Put the constants of a float32 model in one place, and note the type of each value.

    Raises:
        GraphError: if a node holds a graph of its own, or the type of what it gives is not known.

    """
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    InferShapes()(model)
    for node in model.graph:
        if has_graph(node):
            raise GraphError(
                f"'{node.name}' ({node.op_type}) holds a graph of its own",
                remedy="export the model without branches",
            )
        untyped = [value for value in node.outputs if value.name and value.dtype is None]
        if untyped:
            raise GraphError(
                f"the type of '{untyped[0].name}', which {node.op_type} gives, is not known",
                remedy="give a model of standard ONNX operators",
            )


def node_names(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return a name for each node: its own, or its first output's where it has none or shares it."""
    names: dict[ir.Node, str] = {}
    taken: set[str] = set()
    for node in graph:
        name = node.name if node.name and node.name not in taken else str(node.outputs[0].name)
        taken.add(name)
        names[node] = name
    return names


def floats(values: Iterable[ir.Value | None]) -> Iterator[ir.Value]:
    """Yield those of ``values`` that are float32 and have a name: an optional one that is left out has none."""
    yield from (value for value in values if value is not None and value.name and value.dtype == ir.DataType.FLOAT)


def retype(graph: ir.Graph, kept: set[ir.Node]) -> None:
    """Make float16 of all float32 in ``graph`` but the nodes ``kept``, with a Cast wherever the two meet.

    What rewrites have marked to stay float32 is kept, too.
    """
    kept = kept | {node for node in graph if role_of(node) in (Role.FLOAT32, Role.MATCHING)}
    outputs = [value for value in graph.outputs if value.dtype == ir.DataType.FLOAT]
    casts = _Casts(graph)
    for node in list(graph):
        inputs = set(floats(node.inputs))
        half = bool(inputs) and node not in kept and node.op_type not in _FLOAT32_ONLY
        for position, value in enumerate(node.inputs):
            if value is not None and value in inputs:
                node.replace_input_with(position, casts.of(value, half=half))
        if half:
            casts.halves.update(floats(node.outputs))
    for value in outputs:
        if value in casts.halves:
            name = str(value.name)
            value.name = f"{name}.float16"
            cast = casts.of(value, half=False)
            cast.name = name
            graph.outputs[graph.outputs.index(value)] = cast
    for value in casts.halves:  # last, for until here the type tells what may become float16
        value.type = ir.TensorType(ir.DataType.FLOAT16)  # a clone shares the old one


class _Casts:
    """Gives values of a graph in the other type, each made once; ``halves`` are those that are to become float16."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[ir.Value, ir.Value] = {}
        self.halves: set[ir.Value] = set()

    def of(self, value: ir.Value, *, half: bool) -> ir.Value:
        """Return ``value`` as float16 if ``half``, else as float32."""
        if (value in self.halves) == half:
            return value
        if value not in self._made:
            constant = value.const_value is not None and not value.is_graph_input()
            self._made[value] = self._constant(value) if constant else self._cast(value, half=half)
        return self._made[value]

    def _constant(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None  # noqa: S101 - ``of`` has looked
        with np.errstate(over="ignore"):
            values = value.const_value.numpy().astype(np.float16)
        if np.isinf(values).any():
            raise GraphError(
                f"'{value.name}' has values beyond {np.finfo(np.float16).max:.0f}, which float16 cannot hold",
                remedy="take another form of the model, such as --dialect portable",
            )
        return add_constant(self._graph, f"{value.name}.float16", values)

    def _cast(self, value: ir.Value, *, half: bool) -> ir.Value:
        kind = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
        name = f"{value.name}.{'float16' if half else 'float32'}"
        node = ir.node("Cast", [value], attributes={"to": int(kind)}, name=f"{name}.cast")
        (result,) = node.outputs
        result.name, result.shape, result.dtype = name, value.shape, kind
        self._graph.append(node)
        return result
