"""Write a graph in memory to an ONNX file, and say what decides which engines read it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.files import write_atomically
from edgevit.graph.nested import has_graph

_STANDARD = ("", "ai.onnx")  # domains


@dataclass(frozen=True, slots=True)
class SavedModel:
    """An ONNX file that was written: its SHA-256, its opset, and the standard operators that it is made of."""

    path: Path
    sha256: str
    opset: int
    operators: frozenset[str]


def save(model: ir.Model, path: Path) -> SavedModel:
    """Write ``model`` to ``path``, without what is not used.

    Raises:
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    tidy(model)
    content = serialize(model)
    write_atomically(path, content)
    operators = frozenset(node.op_type for node in model.graph.all_nodes() if node.domain in _STANDARD)
    return SavedModel(path, hashlib.sha256(content).hexdigest(), model.opset_imports.get("", 0), operators)


def contents_of(path: Path) -> tuple[int, frozenset[str]]:
    """Return the opset of the ONNX file at ``path``, and the standard operators that it is made of."""
    model = onnx.load(path, load_external_data=False)
    opset = max((each.version for each in model.opset_import if each.domain in _STANDARD), default=0)
    return opset, frozenset(node.op_type for node in model.graph.node if node.domain in _STANDARD)


def tidy(model: ir.Model) -> None:
    """Remove what ``model`` does not use, and put its nodes into the order in which they run."""
    if not _is_used(model):
        common.RemoveUnusedNodesPass()(model)
    put_in_order(model.graph)


def put_in_order(graph: ir.Graph) -> None:
    """Put the nodes of ``graph`` into the order in which they run, the one that they have as far as it can stay."""
    if not _is_in_order(graph):
        graph.sort()


def _is_used(model: ir.Model) -> bool:
    """Say whether nothing can be removed from ``model``, which is quick to see, as that is so most of the time.

    What has graphs inside, and BatchNormalization, which has its own ways, are left to the pass that removes.
    """
    for node in model.graph:
        if node.op_type == "BatchNormalization" or has_graph(node) or (node.inputs and node.inputs[-1] is None):
            return False
        if not node.outputs or not all(value.is_graph_output() or value.uses() for value in node.outputs):
            return False
    constants = model.graph.initializers.values()
    return not model.functions and all(
        value.is_graph_input() or value.is_graph_output() or value.uses() for value in constants
    )


def _is_in_order(graph: ir.Graph) -> bool:
    """Say whether each node comes behind those whose outputs it reads; not where there may be graphs inside nodes."""
    seen: set[ir.Node | None] = {None}
    for node in graph:
        if has_graph(node) or not all(value is None or value.producer() in seen for value in node.inputs):
            return False
        seen.add(node)
    return True


def serialize(model: ir.Model) -> bytes:
    """Return the ONNX file of ``model``."""
    content: bytes = ir.serde.serialize_model(model).SerializeToString()
    return content
