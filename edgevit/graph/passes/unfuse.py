"""Write the operators that onnxruntime's optimisations add as the standard ones that they stand for.

What each computes is documented with onnxruntime (docs/ContribOperators.md). The comparison with the file itself, which
onnxruntime runs, judges what is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from edgevit.errors import GraphError
from edgevit.graph.editing import add_constant
from edgevit.graph.shapes import probe

CONTRIB = "com.microsoft"
_LAYER_NORM_SINCE = 17  # the opset that brought LayerNormalization
_AXES_ARE_INPUTS_SINCE = 18  # of ReduceMean
_LAST = 2**62  # no axis is as long
_BY_SHAPE = ("FusedMatMul", "MultiHeadAttention", "TransposeMatMul")


class Unfuse(ir.passes.InPlacePass):
    """Puts standard operators in the place of ``com.microsoft``'s.

    Raises:
        GraphError: if one has inputs or options of which there is no such form, as masks of keys.

    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        fused = [node for node in graph if is_fused(node)]
        shapes = self._shapes(model, fused)
        for node in fused:
            form = _Standard(graph, node, shapes)
            outputs = UNFUSED[node.op_type](form, node)
            graph.insert_before(node, form.tape.nodes)
            for old, new in zip(node.outputs, outputs, strict=False):
                if new is None or new is old:
                    continue
                if old.is_graph_output():
                    new.name, old.name = old.name, None
                    new.shape, new.type = old.shape, old.type
                old.replace_all_uses_with(new, replace_graph_outputs=True)
            graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(fused))

    def _shapes(self, model: ir.Model, fused: Sequence[ir.Node]) -> dict[ir.Value, tuple[int, ...]]:
        """Return the shapes of the inputs on whose number of axes, or width, the standard form depends."""
        asked = [value for node in fused if node.op_type in _BY_SHAPE for value in node.inputs[:2] if value is not None]
        found = probe(model, self._sizes, asked, ()).shapes if asked else {}
        return {value: shapes[0] for value, shapes in found.items()}


def is_fused(node: ir.Node) -> bool:
    """Say whether ``node`` is one that onnxruntime made, and that can be written in standard operators."""
    return node.domain == CONTRIB and node.op_type in UNFUSED


class _Standard:
    """Standard operators that are made for ``node``, in the order in which they run."""

    def __init__(self, graph: ir.Graph, node: ir.Node, shapes: dict[ir.Value, tuple[int, ...]]) -> None:
        self.tape = Tape()
        self.shapes = shapes
        self._graph, self._name = graph, node.name or node.op_type
        self._opset = graph.opset_imports.get("", 0)

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: float | list[int]) -> ir.Value:
        name = f"{self._name}.{op_type}.{len(self.tape.nodes)}"
        return self.tape.op(op_type, inputs, attributes, name=name)

    def constant(self, values: float | list[int]) -> ir.Value:
        kind = np.float32 if isinstance(values, float) else np.int64
        return add_constant(self._graph, f"{self._name}.constant", np.array(values, dtype=kind))

    def gelu(self, x: ir.Value) -> ir.Value:
        """Return x * Phi(x)."""
        erf = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.constant(1.0))), self.constant(0.5))

    def fast_gelu(self, x: ir.Value) -> ir.Value:
        """Return GELU by Tanh."""
        cube = self.op("Mul", self.op("Mul", self.op("Mul", x, x), x), self.constant(0.044715))
        curve = self.op("Tanh", self.op("Mul", self.op("Add", x, cube), self.constant(math.sqrt(2 / math.pi))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", curve, self.constant(1.0))), self.constant(0.5))

    def layer_norm(self, x: ir.Value, scale: ir.Value, bias: ir.Value | None, epsilon: float) -> ir.Value:
        """Return LayerNorm over the last axis."""
        if self._opset >= _LAYER_NORM_SINCE:
            inputs = [x, scale] if bias is None else [x, scale, bias]
            return self.op("LayerNormalization", *inputs, axis=-1, epsilon=epsilon)
        apart = self.op("Sub", x, self._mean(x))
        squares = self.op("Pow", apart, self.constant(2.0))
        deviation = self.op("Sqrt", self.op("Add", self._mean(squares), self.constant(epsilon)))
        scaled = self.op("Mul", self.op("Div", apart, deviation), scale)
        return scaled if bias is None else self.op("Add", scaled, bias)

    def _mean(self, x: ir.Value) -> ir.Value:
        if self._opset >= _AXES_ARE_INPUTS_SINCE:
            return self.op("ReduceMean", x, self.constant([-1]), keepdims=1)
        return self.op("ReduceMean", x, axes=[-1], keepdims=1)

    def transposed(self, x: ir.Value) -> ir.Value:
        """Return ``x`` with its last two axes exchanged."""
        *batch, rows, columns = range(len(self.shapes[x]))
        return self.op("Transpose", x, perm=[*batch, columns, rows])

    def heads(self, x: ir.Value, heads: int) -> ir.Value:
        """Return tokens (B, N, D) by heads (B, H, N, D / H)."""
        return self.op("Transpose", self.op("Reshape", x, self.constant([0, 0, heads, -1])), perm=[0, 2, 1, 3])

    def attention(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, scale: ir.Value) -> ir.Value:
        """Return softmax(q k^T scale) v of tokens (B, N, D)."""
        query, key, value = (self.heads(each, heads) for each in (query, key, value))
        scores = self.op("MatMul", self.op("Mul", query, scale), self.op("Transpose", key, perm=[0, 1, 3, 2]))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        return self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.constant([0, 0, -1]))

    def part(self, x: ir.Value, start: int, stop: int) -> ir.Value:
        """Return the channels of ``x`` from ``start`` to ``stop``."""
        return self.op("Slice", x, *(self.constant([each]) for each in (start, stop, -1)))


OutputValues = Sequence[ir.Value | None]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _given(node: ir.Node, index: int) -> ir.Value:
    value = _input(node, index)
    if value is None:
        raise _unknown(node, f"has no input {index}")
    return value


def _unknown(node: ir.Node, problem: str) -> GraphError:
    return GraphError(
        f"the operator {CONTRIB}.{node.op_type} '{node.name or ''}' {problem}, which has no standard form here",
        remedy="give the file as it was before onnxruntime optimised it",
    )


def _refuse_inputs(node: ir.Node, first: int, what: str) -> None:
    if any(value is not None for value in node.inputs[first:]):
        raise _unknown(node, f"has {what}")


def _refuse_outputs(node: ir.Node, used: Sequence[int]) -> None:
    for index, value in enumerate(node.outputs):
        if index not in used and (value.uses() or value.is_graph_output()):
            raise _unknown(node, f"gives its output {index}")


def _refuse_options(node: ir.Node, **usual: float) -> None:
    """Raise a GraphError where one of these attributes has another value than that which changes nothing."""
    for name, value in usual.items():
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value != value:
            raise _unknown(node, f"says {name}={attribute.value}")


def _gelu(form: _Standard, node: ir.Node) -> OutputValues:
    return [form.gelu(_given(node, 0))]


def _bias_gelu(form: _Standard, node: ir.Node) -> OutputValues:
    return [form.gelu(form.op("Add", _given(node, 0), _given(node, 1)))]


def _fast_gelu(form: _Standard, node: ir.Node) -> OutputValues:
    bias = _input(node, 1)
    return [form.fast_gelu(_given(node, 0) if bias is None else form.op("Add", _given(node, 0), bias))]


def _quick_gelu(form: _Standard, node: ir.Node) -> OutputValues:
    x, alpha = _given(node, 0), node.attributes.get_float("alpha", 1.702)
    return [form.op("Mul", x, form.op("Sigmoid", form.op("Mul", x, form.constant(alpha))))]


def _layer_norm(form: _Standard, node: ir.Node) -> OutputValues:
    _refuse_options(node, axis=-1)
    _refuse_outputs(node, [0])
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [form.layer_norm(_given(node, 0), _given(node, 1), _input(node, 2), epsilon)]


def _skip_layer_norm(form: _Standard, node: ir.Node) -> OutputValues:
    _refuse_outputs(node, [0, 3])
    total = form.op("Add", _given(node, 0), _given(node, 1))
    bias = _input(node, 4)
    total = total if bias is None else form.op("Add", total, bias)
    epsilon = node.attributes.get_float("epsilon", 1e-12)
    return [form.layer_norm(total, _given(node, 2), _input(node, 3), epsilon), None, None, total]


def _fused_matmul(form: _Standard, node: ir.Node) -> OutputValues:
    _refuse_options(node, transBatchA=0, transBatchB=0)
    left, right = _given(node, 0), _given(node, 1)
    left = form.transposed(left) if node.attributes.get_int("transA", 0) else left
    right = form.transposed(right) if node.attributes.get_int("transB", 0) else right
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha != 1:
        left = form.op("Mul", left, form.constant(alpha))
    return [form.op("MatMul", left, right)]


_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh")


def _activated(form: _Standard, node: ir.Node, x: ir.Value) -> ir.Value:
    kind = node.attributes.get_string("activation", "")
    if kind in _ACTIVATIONS:
        return form.op(kind, x)
    if kind:
        raise _unknown(node, f"says activation={kind}")
    return x


def _fused_conv(form: _Standard, node: ir.Node) -> OutputValues:
    kept = {name: each for name, each in node.attributes.items() if not name.startswith("activation")}
    convolved = form.tape.op("Conv", [each for each in node.inputs[:3] if each is not None], kept)
    added = _input(node, 3)
    return [_activated(form, node, convolved if added is None else form.op("Add", convolved, added))]


def _fused_gemm(form: _Standard, node: ir.Node) -> OutputValues:
    kept = {name: each for name, each in node.attributes.items() if not name.startswith("activation")}
    return [_activated(form, node, form.tape.op("Gemm", list(node.inputs), kept))]


def _attention(form: _Standard, node: ir.Node) -> OutputValues:
    _refuse_inputs(node, 3, "a mask, a past, or a bias")
    _refuse_options(node, unidirectional=0, do_rotary=0, past_present_share_buffer=0)
    _refuse_outputs(node, [0])
    weights = _given(node, 1)
    if weights.shape is None or not isinstance(weights.shape[1], int):
        raise _unknown(node, "has weights of no known size")
    width, heads = weights.shape[1] // 3, node.attributes.get_int("num_heads", 1)
    sizes = node.attributes.get_ints("qkv_hidden_sizes", None)
    if sizes is not None and list(sizes) != [width] * 3:
        raise _unknown(node, f"says qkv_hidden_sizes={list(sizes)}")
    qkv = form.op("MatMul", _given(node, 0), weights)
    bias = _input(node, 2)
    qkv = qkv if bias is None else form.op("Add", qkv, bias)
    query, key, value = (form.part(qkv, index * width, (index + 1) * width) for index in range(3))
    scale = node.attributes.get_float("scale", 0.0) or 1 / math.sqrt(width / heads)
    return [form.attention(query, key, value, heads=heads, scale=form.constant(scale))]


def _multi_head_attention(form: _Standard, node: ir.Node) -> OutputValues:
    _refuse_inputs(node, 4, "a mask, a past, or a bias of positions")
    _refuse_options(node, unidirectional=0)
    _refuse_outputs(node, [0])
    tokens = [_given(node, index) for index in range(3)]
    shape = form.shapes[tokens[0]]
    if len(shape) != 3:
        raise _unknown(node, "has query, key and value in one")
    width, heads = shape[-1], node.attributes.get_int("num_heads", 1)
    bias = _input(node, 3)
    if bias is not None:
        parts = [form.part(bias, index * width, (index + 1) * width) for index in range(3)]
        tokens = [form.op("Add", each, part) for each, part in zip(tokens, parts, strict=True)]
    scale = node.attributes.get_float("scale", 0.0) or 1 / math.sqrt(width / heads)
    return [form.attention(*tokens, heads=heads, scale=form.constant(scale))]


UNFUSED: dict[str, Callable[[_Standard, ir.Node], OutputValues]] = {
    "Attention": _attention,
    "BiasGelu": _bias_gelu,
    "FastGelu": _fast_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu,
    "LayerNormalization": _layer_norm,
    "MultiHeadAttention": _multi_head_attention,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
    "TransposeMatMul": _fused_matmul,
}
