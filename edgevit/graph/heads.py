"""Which Linear layers and convolutions of a graph with outputs of several kinds are its head, not its backbone."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import onnx_ir as ir

from edgevit.graph.convolutions import convolutions_in
from edgevit.graph.linears import linears_in
from edgevit.graph.patterns import mixed_by

#: A block adds to the residual stream twice: what its attention gives, and what its MLP gives.
_ADDITIONS = 2


def head_layers(graph: ir.Graph) -> frozenset[str]:
    """Return the names of the layers and convolutions that no attention comes after, but for those of the last block.

    There are none where the graph gives one row of numbers, as classifiers do, or has no attention, or where these
    are most of what all multiply.
    """
    if len(graph.outputs) == 1 and _rank(graph.outputs[0]) in (None, 2):
        return frozenset()
    attentions = [node for node in graph if node.op_type == "Softmax" and mixed_by(node) is not None]
    if not attentions:
        return frozenset()
    before = _ancestors(attentions)
    own = _last_block(graph, attentions[-1])
    works = _works(graph)
    found = {node: name for node, (name, _) in works.items() if node not in before and node not in own}
    of_head = sum(works[node][1] for node in found)
    whole = sum(work for _, work in works.values())
    return frozenset(found.values()) if 2 * of_head <= whole else frozenset()


def _ancestors(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.predecessors()
    return found


def _last_block(graph: ir.Graph, attention: ir.Node) -> set[ir.Node]:
    """Return what follows ``attention`` up to where its block has added twice to the residual stream."""
    found, additions = {attention}, 0
    for node in graph:
        if additions == _ADDITIONS:
            break
        if found.isdisjoint(node.predecessors()):
            continue
        found.add(node)
        constants = any(value is not None and value.is_initializer() for value in node.inputs)
        additions += node.op_type == "Add" and not constants
    return found


def _works(graph: ir.Graph) -> dict[ir.Node, tuple[str, int]]:
    """Return for each node that multiplies by a weight its layer's name, and its multiply-adds for an image."""
    found = {}
    for layer in linears_in(graph):
        found[layer.matmul] = layer.of, layer.weight.size * _places(layer.output, slice(1, -1))
    for each in convolutions_in(graph):
        found[each.node] = each.name, each.weight.size * _places(each.output, slice(2, None))
    return found


def _places(value: ir.Value, axes: slice) -> int:
    """Return for how many places of an image ``value`` is computed, as far as its shape is known."""
    sizes = [] if value.shape is None else list(value.shape)[axes]
    return prod(size for size in sizes if isinstance(size, int))


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)
