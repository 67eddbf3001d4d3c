"""Write a graph in memory to an ONNX file, and say what decides which engines read it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.files import write_atomically

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
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()


def serialize(model: ir.Model) -> bytes:
    """Return the ONNX file of ``model``."""
    content: bytes = ir.serde.serialize_model(model).SerializeToString()
    return content
