"""Write attention as the exporter of EdgeViT does, whatever form it has in a file of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgevit.graph.any_attention import AnyAttention, HeadColumns, any_attention, is_softmax
from edgevit.graph.attention import AttentionSubgraph, find_attentions
from edgevit.graph.editing import add_constant, free_name, set_linear
from edgevit.graph.layout import is_move, origin_of, scaling
from edgevit.graph.linears import LinearLayer, linears_in
from edgevit.graph.saving import put_in_order
from edgevit.graph.shapes import BATCH, as_constant

_SWAP = [1, 0, 2]  # (B, N, D) -> (N, B, D), and back


class CanonicalAttention(ir.passes.InPlacePass):
    """Puts Split, Reshape, Transpose, Mul, MatMul, Softmax, MatMul, Transpose and Reshape in the place of attentions.

    That is the form that ``graph.attention`` finds, and so all that is made of it. What a file has in its place is told
    by where values go (``graph.layout``), with each of ``sizes`` images: query, key and value must be columns of
    tokens, head by head. Those of one product that lie in another order there get the usual one, in its weight.
    An attention with a mask, or with anything else between what makes query and key and their product, stays as it is.

    Values must have shapes, as ``FixShapes`` gives them.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        known = {attention.softmax for attention in find_attentions(graph) if _is_usual(attention)}
        found = [any_attention(node, self._sizes) for node in graph if node not in known and is_softmax(node)]
        written = [_write(graph, attention) for attention in found if attention is not None]
        put_in_order(graph)
        return ir.passes.PassResult(model, modified=any(written))


def _is_usual(attention: AttentionSubgraph) -> bool:
    """Say whether query, key and value are outputs of one Split, or come from layers of their own."""
    return attention.packed() is not None or all(
        origin_of(value).source is value for value in (attention.query, attention.key, attention.value)
    )


def _write(graph: ir.Graph, attention: AnyAttention) -> bool:
    """Put the usual form in the place of ``attention``, if query, key and value are what it takes."""
    writer = _Writer(graph, attention.softmax.name or str(attention.output.name), attention.output.type)
    parts = _separate(graph, writer, attention)
    if parts is None:
        return False
    heads = attention.query.heads
    query, key, value = (
        writer.heads_apart(name, tokens, each.count, heads, perm)
        for name, tokens, each, perm in (
            ("query", parts[0], attention.query, [0, 2, 1, 3]),
            ("key", parts[1], attention.key, [0, 2, 3, 1]),
            ("value", parts[2], attention.value, [0, 2, 1, 3]),
        )
    )
    if attention.scale != 1:
        factor = add_constant(graph, f"{writer.name}.scale", np.array(attention.scale, dtype=np.float32))
        query = writer.add("Mul", "query.scaled", [query, factor])
    scores = writer.add("MatMul", "scores", [query, key], called=attention.scores.name)
    weights = writer.add("Softmax", "weights", [scores], called=attention.softmax.name, axis=-1)
    mixed = writer.add("MatMul", "mixed", [weights, value], called=attention.mixed.name)
    joined = writer.add("Transpose", "joined", [mixed], perm=[0, 2, 1, 3])
    batch = _batch(attention.query.source)
    output = writer.reshape("output", joined, [batch, attention.query.count, attention.value.width])
    _put_in_place(writer, attention, output)
    return True


def _put_in_place(writer: _Writer, attention: AnyAttention, output: ir.Value) -> None:
    """Let those that read what ``attention`` gives read ``output``, turned as they expect it."""
    old = attention.output
    assert old.shape is not None and output.shape is not None  # noqa: S101, PT018 - it was followed by its shape
    if attention.swapped:
        first, second, width = output.shape
        output = writer.add("Transpose", "swapped", [output], perm=_SWAP)
        output.shape = ir.Shape([second, first, width])
    if len(old.shape) != len(output.shape or ()):
        output = writer.reshape("rows", output, list(old.shape))
    output.shape = old.shape
    last = attention.mixed
    ir.convenience.replace_nodes_and_values(writer.graph, last, [], writer.nodes, [old], [output])


class _Writer:
    """Collects new nodes, named after ``name``; their values have the type ``kind``."""

    def __init__(self, graph: ir.Graph, name: str, kind: ir.TypeProtocol | None) -> None:
        self.graph, self.name, self.nodes = graph, name, list[ir.Node]()
        self._kind = kind

    def add(
        self,
        operator: str,
        suffix: str,
        inputs: list[ir.Value],
        *,
        called: str | None = None,
        **attributes: int | list[int],
    ) -> ir.Value:
        """Add a node, ``called`` so or by the ``suffix``, and return what it gives."""
        name = called or free_name(self.graph, f"{self.name}.{suffix}")
        node = ir.node(operator, inputs, attributes, name=name)
        self.nodes.append(node)
        output = node.outputs[0]
        output.name, output.type = free_name(self.graph, f"{self.name}.{suffix}.output"), self._kind
        return output

    def reshape(self, suffix: str, value: ir.Value, shape: list[int | ir.SymbolicDim]) -> ir.Value:
        """Add a Reshape to ``shape``, of which one size may be a name."""
        constant = as_constant(ir.Shape(shape)) or []
        sizes = add_constant(self.graph, f"{self.name}.{suffix}.shape", np.array(constant, dtype=np.int64))
        output = self.add("Reshape", suffix, [value, sizes])
        output.shape = ir.Shape(shape)
        return output

    def heads_apart(self, suffix: str, tokens: ir.Value, count: int, heads: int, perm: list[int]) -> ir.Value:
        """Make (B, h, N, d), or (B, h, d, N), of ``tokens`` (B, N, D)."""
        assert tokens.shape is not None  # noqa: S101 - they were found by it
        batch, _, width = tokens.shape
        assert isinstance(width, int)  # noqa: S101 - as above
        apart = self.reshape(suffix, tokens, [batch, count, heads, width // heads])
        return self.add("Transpose", f"{suffix}.transposed", [apart], perm=perm)


def _batch(source: ir.Value) -> int | ir.SymbolicDim:
    assert source.shape is not None  # noqa: S101 - it was followed by it
    named = [size for size in source.shape if not isinstance(size, int)]
    return ir.SymbolicDim(BATCH) if named else 1


def _separate(graph: ir.Graph, writer: _Writer, attention: AnyAttention) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return query, key and value (B, N, D) each; None where they are not the columns of one product, or of three."""
    query, key, value = three = attention.query, attention.key, attention.value
    if len({each.source for each in three}) == len(three):
        if not all(_in_order(graph, [each]) for each in three):
            return None
        return _as_tokens(writer, query), _as_tokens(writer, key), _as_tokens(writer, value)
    if len({(each.source, each.swapped, each.count, each.width) for each in three}) > 1 or not _in_order(graph, three):
        return None
    whole = _as_tokens(writer, query)
    assert whole.shape is not None  # noqa: S101 - _as_tokens gives it
    split = ir.node(
        "Split", [whole], {"axis": 2, "num_outputs": 3}, num_outputs=3, name=free_name(graph, f"{writer.name}.split")
    )
    for output in split.outputs:
        output.name, output.type = free_name(graph, f"{split.name}.output"), whole.type
        output.shape = ir.Shape([*whole.shape[:2], query.width])
    writer.nodes.append(split)
    return split.outputs[0], split.outputs[1], split.outputs[2]


def _in_order(graph: ir.Graph, parts: Sequence[HeadColumns]) -> bool:
    """Say whether ``parts`` are all columns of their source, one behind the other, or were made so."""
    source = parts[0].source
    shape = source.shape
    columns = [column for part in parts for column in part.columns]
    if shape is None or sorted(columns) != list(range(len(columns))) or len(columns) != shape[-1]:
        return False
    if columns == list(range(len(columns))):
        return True
    layer = next((each for each in linears_in(graph) if each.output is source), None)
    if layer is None or source.is_graph_output() or not _read_by_attention_alone(source, len(parts)):
        return False
    _permute(graph, layer, columns)
    return True


def _read_by_attention_alone(source: ir.Value, parts: int) -> bool:
    """Say whether what moves the values of ``source`` ends in so many places, and so in those of one attention."""
    ends, waiting = 0, [source]
    while waiting:
        for node, _ in waiting.pop().uses():
            if is_move(node) or scaling(node) is not None:
                waiting += node.outputs
            else:
                ends += 1
    return ends == parts


def _permute(graph: ir.Graph, layer: LinearLayer, columns: list[int]) -> None:
    bias = None if layer.bias is None else np.ascontiguousarray(layer.bias[columns])
    set_linear(graph, layer, np.ascontiguousarray(layer.weight[:, columns]), bias)


def _as_tokens(writer: _Writer, tokens: HeadColumns) -> ir.Value:
    """Return the whole source as (B, N, D)."""
    value, batch = tokens.source, _batch(tokens.source)
    assert value.shape is not None  # noqa: S101 - it was followed by its shape
    width = value.shape[-1]
    if len(value.shape) != 3:
        first = [tokens.count, batch] if tokens.swapped else [batch, tokens.count]
        value = writer.reshape("tokens", value, [*first, width])
    if tokens.swapped:
        value = writer.add("Transpose", "images", [value], perm=_SWAP)
        value.shape = ir.Shape([batch, tokens.count, width])
    return value
