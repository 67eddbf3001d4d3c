"""Find multi-head self-attention in a graph, in the form that the exporter gives it: what rewrites can change.

``graph.patterns`` finds it in any form.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgevit.graph.patterns import attention_around, attention_names

_SPLIT_HEADS = (0, 2, 1, 3)  # (B, N, h, d) -> (B, h, N, d), and back
_SPLIT_AND_TRANSPOSE = (0, 2, 3, 1)  # (B, N, h, d) -> (B, h, d, N)


@dataclass(frozen=True, slots=True)
class AttentionSubgraph:
    """softmax(scale Q K^T) V in each of ``heads``, from tokens to tokens.

    ``query``, ``key`` and ``value`` are (B, N, D) before heads are split, ``output`` (B, N, D) after they are joined.
    ``scores`` multiplies query and key, ``mixed`` the softmax and the values. ``query_path`` are the nodes on the way
    from ``query`` to ``output``, in the order in which they run, ``other_paths`` those from key and value to the
    products; ``scaling`` is the one that multiplies the query by ``scale``, None where it is not scaled. ``bias`` is
    (B, 1, 1, N), what is added to all scores of a key, None where nothing is. ``name`` tells it from all others: the
    module's, such as ``blocks.0.attn``, if that has no other, else that of the softmax or of ``output``.
    """

    name: str
    softmax: ir.Node
    scores: ir.Node
    mixed: ir.Node
    scaling: ir.Node | None
    query: ir.Value
    key: ir.Value
    value: ir.Value
    output: ir.Value
    heads: int
    scale: float
    query_path: tuple[ir.Node, ...]
    other_paths: tuple[ir.Node, ...]
    bias: ir.Value | None

    def packed(self) -> ir.Value | None:
        """Return the value (B, N, 3D) that holds query, key and value side by side, if there is one."""
        split = self.query.producer()
        if split is None or split.op_type != "Split" or list(split.outputs) != [self.query, self.key, self.value]:
            return None
        whole = split.inputs[0]
        equal = "num_outputs" in split.attributes or len({str(value.shape) for value in split.outputs}) == 1
        return whole if equal and split.attributes.get_int("axis", 0) in (2, -1) else None


class ValuePath(NamedTuple):
    """The way of an attention's values, which its rows of weights average: tokens (B, N, D) in ``heads``, and out."""

    value: ir.Value
    output: ir.Value
    heads: int

    def packed(self) -> ir.Value | None:
        """Return the value (B, N, ...) that holds the values last, if a Split takes them from there."""
        split = self.value.producer()
        if split is None or split.op_type != "Split" or split.outputs[-1] is not self.value:
            return None
        return split.inputs[0] if split.attributes.get_int("axis", 0) in (2, -1) else None


def find_value_paths(graph: ir.Graph) -> list[ValuePath]:
    """Return the ways of values through attentions, whatever softmax looks at: turned queries, biases, masks."""
    return [path for node in graph if (path := _value_path(node)) is not None]


def _value_path(softmax: ir.Node) -> ValuePath | None:
    if softmax.op_type != "Softmax" or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    mixed = _consumer(softmax.outputs[0], "MatMul")
    if mixed is None or mixed.inputs[0] is not softmax.outputs[0]:
        return None
    value, joined = _heads(mixed.inputs[1], _SPLIT_HEADS), _joined(mixed)
    return None if value is None or joined is None else ValuePath(value.tokens, joined[-1].outputs[0], value.heads)


@dataclass(frozen=True, slots=True)
class TurnedAttention:
    """softmax(scale Q K^T + bias) V where queries and keys are turned or normalised head by head, or there is a bias.

    ``query`` and ``key`` are (B, N, h, d), ``value`` is (B, N, D) before heads are split, ``output`` (B, N, D) after
    they are joined by ``last``. ``bias`` is a constant (h, N, N), None where there is none. ``name`` is as in
    ``AttentionSubgraph``.
    """

    name: str
    softmax: ir.Node
    query: ir.Value
    key: ir.Value
    value: ir.Value
    output: ir.Value
    last: ir.Node
    heads: int
    scale: float
    bias: ir.Value | None


def find_turned_attentions(graph: ir.Graph) -> list[TurnedAttention]:
    """Return the attentions of ``graph`` that ``find_attentions`` does not, in the form of EdgeViT's own exports."""
    names = attention_names(graph)
    found = (_turned(softmax, name) for softmax, name in names.items() if _attention(softmax, name) is None)
    return [attention for attention in found if attention is not None]


def _turned(softmax: ir.Node, name: str) -> TurnedAttention | None:
    path = _value_path(softmax)
    mixed = None if path is None else _consumer(softmax.outputs[0], "MatMul")
    joined = None if mixed is None else _joined(mixed)
    if path is None or joined is None:
        return None
    added = _producer(softmax.inputs[0], "Add")
    bias = None if added is None else next((each for each in added.inputs if _is_bias(each)), None)
    if added is not None and bias is None:
        return None
    product = softmax.inputs[0] if added is None else next(each for each in added.inputs if each is not bias)
    scores = _producer(product, "MatMul")
    if scores is None:
        return None
    scaled = _producer(scores.inputs[0], "Mul")
    unscaled, scale = (scores.inputs[0], 1.0) if scaled is None else _factor(scaled)
    query, key = _apart(unscaled, _SPLIT_HEADS), _apart(scores.inputs[1], _SPLIT_AND_TRANSPOSE)
    if query is None or key is None:
        return None
    found = (query, key, path.value, path.output, joined[-1], path.heads, scale, bias)
    return TurnedAttention(name or str(path.output.name), softmax, *found)


def _apart(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    """Return the value (B, N, h, d), of sizes that are known but for B, of which ``value`` is the transpose."""
    transpose = _producer(value, "Transpose")
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != perm:
        return None
    source = transpose.inputs[0]
    shape = None if source is None else source.shape
    known = shape is not None and len(shape) == 4 and all(isinstance(size, int) for size in list(shape)[1:])
    return source if known else None


def _is_bias(value: ir.Value | None) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and len(tensor.shape) == 3


def find_attentions(graph: ir.Graph) -> list[AttentionSubgraph]:
    """Return the attentions of ``graph`` in the order in which they run; any other form than the exporter's is none."""
    found = (_attention(softmax, name) for softmax, name in attention_names(graph).items())
    return [attention for attention in found if attention is not None]


def _attention(softmax: ir.Node, name: str) -> AttentionSubgraph | None:
    """Return the attention around ``softmax``, if it is one."""
    found = attention_around(softmax)
    if found is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    scores, mixed = found.scores, found.mixed
    biased = _producer(softmax.inputs[0], "Add")
    added = () if biased is None else (biased,)
    bias = None if biased is None else biased.inputs[1]
    if not all(_feeds_only(*pair) for pair in pairwise((scores, *added, softmax, mixed))):
        return None
    if biased is not None and not _is_of_keys(bias):
        return None
    scaled = _producer(scores.inputs[0], "Mul")
    unscaled, scale = (scores.inputs[0], 1.0) if scaled is None else _factor(scaled)
    query, key = _heads(unscaled, _SPLIT_HEADS), _heads(scores.inputs[1], _SPLIT_AND_TRANSPOSE)
    value, joined = _heads(mixed.inputs[1], _SPLIT_HEADS), _joined(mixed)
    if (
        query is None
        or key is None
        or value is None
        or joined is None
        or len({query.heads, key.heads, value.heads}) > 1
    ):
        return None
    scaling = () if scaled is None else (scaled,)
    return AttentionSubgraph(
        name=name or str(joined[-1].outputs[0].name),
        softmax=softmax,
        scores=scores,
        mixed=mixed,
        scaling=scaled,
        query=query.tokens,
        key=key.tokens,
        value=value.tokens,
        output=joined[-1].outputs[0],
        heads=query.heads,
        scale=scale,
        query_path=(*query.nodes, *scaling, scores, *added, softmax, mixed, *joined),
        other_paths=(*key.nodes, *value.nodes),
        bias=bias,
    )


def _is_of_keys(bias: ir.Value | None) -> bool:
    """Say whether ``bias`` is (B, 1, 1, N): the same for all queries, in each head."""
    shape = None if bias is None else bias.shape
    return shape is not None and len(shape) == 4 and shape[1] == shape[2] == 1


class _Heads(NamedTuple):
    """A value with its heads apart: the tokens (B, N, D) that it is made of, how many heads, and by which nodes."""

    tokens: ir.Value
    heads: int
    nodes: tuple[ir.Node, ...]


def _heads(value: ir.Value | None, perm: tuple[int, ...]) -> _Heads | None:
    transpose = _producer(value, "Transpose")
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != perm:
        return None
    reshape = _producer(transpose.inputs[0], "Reshape")
    shape = None if reshape is None else _constant_shape(reshape)
    if reshape is None or shape is None or len(shape) != 4 or shape[2] < 1 or reshape.inputs[0] is None:
        return None
    tokens = reshape.inputs[0]
    if tokens.shape is not None and len(tokens.shape) != 3:
        return None  # such as one token (B, D), which CaiT's class attention asks with
    return _Heads(tokens, shape[2], (reshape, transpose))


def _joined(mixed: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """Return the nodes that join the heads of ``mixed`` to tokens (B, N, D)."""
    transpose = _consumer(mixed.outputs[0], "Transpose")
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != _SPLIT_HEADS:
        return None
    reshape = _consumer(transpose.outputs[0], "Reshape")
    shape = None if reshape is None else _constant_shape(reshape)
    return None if reshape is None or shape is None or len(shape) != 3 else (transpose, reshape)


def _factor(product: ir.Node) -> tuple[ir.Value | None, float]:
    """Return what ``product`` multiplies by a constant, and that constant; None where neither input is one."""
    for factor, other in (product.inputs, product.inputs[::-1]):
        constant = None if factor is None else ir.convenience.get_const_tensor(factor)
        if constant is not None and constant.size == 1:
            return other, float(constant.numpy().item())
    return None, 1.0


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that computes ``value`` for one other node alone, if it is an ``op_type``."""
    node = None if value is None or not _private(value) else value.producer()
    return node if node is not None and node.op_type == op_type else None


def _consumer(value: ir.Value, op_type: str) -> ir.Node | None:
    """Return the one node that takes ``value``, if it is an ``op_type``."""
    if not _private(value):
        return None
    (node,) = value.consumers()
    return node if node.op_type == op_type else None


def _feeds_only(node: ir.Node, other: ir.Node) -> bool:
    """Say whether all that ``node`` gives is the first input of ``other``."""
    return _private(node.outputs[0]) and other.inputs[0] is node.outputs[0]


def _private(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _constant_shape(reshape: ir.Node) -> list[int] | None:
    value = reshape.inputs[1]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy()).tolist()
