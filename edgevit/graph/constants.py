"""Give nodes of a graph other constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.graph.linears import LinearLayer


def set_constant(graph: ir.Graph, node: ir.Node, index: int, name: str, values: NDArray[np.float32]) -> None:
    """Let ``node`` read ``values`` as its input ``index``, under ``name``; other nodes keep what they read."""
    old = node.inputs[index] if index < len(node.inputs) else None
    tensor = ir.tensor(np.ascontiguousarray(values, dtype=np.float32), name=name)
    if old is not None and old.is_initializer() and old.name == name and len(old.uses()) == 1:
        old.const_value, old.shape, old.dtype = tensor, ir.Shape(values.shape), ir.DataType.FLOAT
        return
    new = ir.Value(name=_free_name(graph, name), const_value=tensor)
    new.shape, new.dtype = ir.Shape(values.shape), ir.DataType.FLOAT
    graph.register_initializer(new)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)


def set_linear(
    graph: ir.Graph, layer: LinearLayer, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> None:
    """Give ``layer`` another weight (K, N) and bias (N,); a layer without a bias takes None only.

    Raises:
        GraphError: if there is a bias and the layer has none to put it in.

    """
    product, addition = layer.product, layer.addition
    if product.op_type == "Gemm":
        for attribute in ("transB", "alpha", "beta"):
            product.attributes.pop(attribute, None)
    set_constant(graph, product, 1, f"{layer.name}.weight", weight)
    if bias is None:
        return
    if product.op_type == "Gemm":
        set_constant(graph, product, 2, f"{layer.name}.bias", bias)
    elif addition is not None:
        index = 1 if addition.inputs[0] is product.outputs[0] else 0
        set_constant(graph, addition, index, f"{layer.name}.bias", bias)
    else:
        raise GraphError(f"'{layer.name}' has no bias to correct", remedy="export the model with biases")


def _free_name(graph: ir.Graph, name: str) -> str:
    taken = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
    taken |= set(graph.initializers)
    count = 0
    while (candidate := f"{name}_{count}" if count else name) in taken:
        count += 1
    return candidate
