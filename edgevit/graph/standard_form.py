"""Bring a file of others to standard operators in float32, without branches."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.errors import GraphError
from edgevit.graph.passes.inline_branches import InlineBranches
from edgevit.graph.passes.to_float32 import OTHER_FLOATS, ToFloat32
from edgevit.graph.passes.unfuse import CONTRIB, Unfuse, is_fused
from edgevit.graph.running import ENGINE_ERRORS
from edgevit.graph.shapes import BATCH, SIZES

_USUAL = (3, 224, 224)  # stands in for sizes that are open: what is asked seldom depends on them


@dataclass(frozen=True, slots=True, eq=False)
class StandardForm:
    """A model of standard operators and float32; ``floats`` names other types it had, ``notes`` say what was done."""

    model: onnx.ModelProto
    floats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def standard_form(model: onnx.ModelProto) -> StandardForm:
    """Return ``model`` with standard operators and float32 alone, as far as it can be.

    What ``half()`` and onnxruntime's optimisations leave is undone, and an If that takes one branch for any image is
    replaced by that branch. Whoever uses the result must compare what it gives with what the file gives.

    Raises:
        GraphError: if an operator of onnxruntime's has no standard form, or the graph cannot be run to find out.
        InputError: if running it takes more memory or time than the file's size explains.

    """
    graph = ir.serde.from_proto(model)
    types = {value.dtype for value in _values(graph.graph)}
    floats = [kind.name.lower() for kind in OTHER_FLOATS if kind in types]
    fused = sorted({node.op_type for node in graph.graph if is_fused(node)})
    branches = any(node.op_type == "If" and not node.domain for node in graph.graph)
    common.RemoveInitializersFromInputsPass()(graph)
    if not (floats or fused or branches):
        return StandardForm(model)
    common.NameFixPass()(graph)
    if floats:
        ToFloat32()(graph)
    sizes = _fix_sizes(graph.graph)
    if sizes:
        try:
            InlineBranches(sizes)(graph)
            Unfuse(sizes)(graph)
        except ENGINE_ERRORS as error:
            raise GraphError(
                f"onnxruntime cannot run the graph: {str(error).splitlines()[0]}",
                remedy="export it again with images of a fixed size, without onnxruntime's optimisations",
            ) from error
    common.RemoveUnusedNodesPass()(graph)
    if not any(node.domain == CONTRIB for node in graph.graph.all_nodes()):
        graph.opset_imports.pop(CONTRIB, None)
    said = (
        f"its {' and '.join(floats)} is computed in float32" if floats else "",
        f"onnxruntime's {', '.join(fused)} are written in standard operators" if fused else "",
        "branches that are never taken are left out" if branches else "",
    )
    return StandardForm(ir.serde.to_proto(graph), tuple(floats), tuple(each for each in said if each))


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph.all_nodes() for value in node.outputs]
    constants = [value for inner in (graph, *graph.subgraphs()) for value in inner.initializers.values()]
    return [*graph.inputs, *graph.outputs, *constants, *made]


def _fix_sizes(graph: ir.Graph) -> tuple[int, ...]:
    """Give the one input a shape that is fixed but for the batch; return numbers of images to ask the graph with.

    Empty where the graph does not take images alone: whoever reads its interface says so.
    """
    if len(graph.inputs) != 1:
        return ()
    (images,) = graph.inputs
    if images.shape is None or len(images.shape) != len(_USUAL) + 1:
        return ()
    batch, *size = images.shape
    known = [each if isinstance(each, int) and each > 0 else usual for each, usual in zip(size, _USUAL, strict=True)]
    images.shape = ir.Shape([batch if isinstance(batch, int) else BATCH, *known])
    return (batch,) if isinstance(batch, int) and batch > 0 else SIZES
