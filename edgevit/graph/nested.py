"""Graphs inside nodes: the branches of If, the bodies of loops."""

from __future__ import annotations

import onnx_ir as ir

_KINDS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def has_graph(node: ir.Node) -> bool:
    """Say whether there is a graph in ``node``."""
    return bool(node.attributes) and any(attribute.type in _KINDS for attribute in node.attributes.values())
