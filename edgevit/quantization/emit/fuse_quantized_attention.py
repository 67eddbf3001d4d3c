"""Write attention and the Linear layer in front of it as one operator of onnxruntime's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import add_constant
from edgevit.graph.node_facts import Role, is_marked, layer_of, mark_node
from edgevit.graph.saving import tidy

_DOMAIN = "com.microsoft"
_PRODUCT = "MatMulIntegerToFloat"
_WEIGHT, _WEIGHT_SCALES, _ZERO_POINT, _BIAS = 1, 3, 4, 6  # among the inputs of the product


class _Joined(NamedTuple):
    """An attention whose query, key and value are the three parts of the layer ``name``."""

    name: str
    attention: ir.Node
    parts: tuple[ir.Node, ir.Node, ir.Node]


class FuseQuantizedAttention(ir.passes.InPlacePass):
    """Puts com.microsoft's QAttention in the place of ONNX's Attention and the integer products that it reads.

    It multiplies in integers by the weight of query, key and value, and lays heads out as attention reads them, where
    Attention copies all three first: on two threads the whole takes about four fifths of the time for 6 heads, nine
    tenths for 12, and no less for 3 (``benchmarks/attention_forms.py``). Attention itself is in float32, one head of an
    image to a thread, as Attention's is: what ``FuseAttention`` has left to MultiHeadAttention stays so. The answer is
    the same.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        joined = [each for node in model.graph if (each := _joined(node)) is not None]
        for each in joined:
            _replace(model.graph, each)
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(joined))


def _joined(node: ir.Node) -> _Joined | None:
    """Return ``node`` with the layer whose parts it reads, None if it is no such attention."""
    if node.op_type != "Attention" or node.domain or len(node.inputs) > 3:  # QAttention adds nothing to scores
        return None
    query, key, value = (None if each is None else each.producer() for each in node.inputs[:3])
    if query is None or key is None or value is None:
        return None
    parts = (query, key, value)
    name = layer_of(query)
    of_one_layer = name is not None and all(is_marked(part, Role.SPLIT, name) for part in parts)
    alone = all(len(part.outputs[0].uses()) == 1 and not part.outputs[0].is_graph_output() for part in parts)
    integer = all(part.op_type == _PRODUCT and part.inputs[0] is query.inputs[0] for part in parts)
    if integer and _constant(query, _ZERO_POINT).dtype != np.uint8:
        return None  # signed activations QAttention does not take
    return _Joined(name, node, parts) if name is not None and of_one_layer and alone and integer else None


def _replace(graph: ir.Graph, joined: _Joined) -> None:
    name, attention, parts = joined
    heads = attention.attributes.get_int("q_num_heads", 0)
    weight = np.concatenate([_constant(part, _WEIGHT) for part in parts], axis=1)
    scales = np.concatenate([_constant(part, _WEIGHT_SCALES) for part in parts])
    widths = [_constant(part, _WEIGHT).shape[1] for part in parts]
    bias = np.concatenate([_bias(part, width) for part, width in zip(parts, widths, strict=True)])
    # QAttention divides the scores by the root of a head's width itself, and does not take another scale.
    of_query = attention.attributes.get_float("scale", 1.0) * np.sqrt(widths[0] / heads)
    for values in (scales, bias):
        values[: widths[0]] *= np.float32(of_query)
    source, scale, zero_point = (parts[0].inputs[index] for index in (0, 2, _ZERO_POINT))
    inputs = [
        source,
        add_constant(graph, f"{name}.weight.int8", weight),
        add_constant(graph, f"{name}.bias.float32", bias),
        scale,
        add_constant(graph, f"{name}.weight.scale", scales),
        None,  # a mask
        zero_point,
        add_constant(graph, f"{name}.weight.zero_point", np.array(0, dtype=weight.dtype)),
    ]
    node = ir.node("QAttention", inputs, attributes={"num_heads": heads}, domain=_DOMAIN, name=name)
    mark_node(node, Role.PART, name)
    new, old = node.outputs[0], attention.outputs[0]
    new.name, new.shape, new.type = f"{name}.attention", old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, attention, [], [node], [old], [new])
    graph.opset_imports[_DOMAIN] = 1


def _constant(part: ir.Node, index: int) -> NDArray[np.generic]:
    value = part.inputs[index]
    assert value is not None  # noqa: S101 - the emitter has made them constants
    assert value.const_value is not None  # noqa: S101
    return value.const_value.numpy()


def _bias(part: ir.Node, width: int) -> NDArray[np.generic]:
    has_one = len(part.inputs) > _BIAS and part.inputs[_BIAS] is not None
    return _constant(part, _BIAS) if has_one else np.zeros(width, dtype=np.float32)
