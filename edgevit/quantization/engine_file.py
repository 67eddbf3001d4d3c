"""The ONNX file that an engine opens: it says which of its products computes which Linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgevit.graph.node_facts import PRODUCTS, clear_facts, products_note
from edgevit.graph.products import products_in
from edgevit.graph.saving import SavedModel, save, tidy

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Emitted:
    """A file that was written for an engine, and the attentions that stay in float though they should not, with why."""

    file: SavedModel
    float_attentions: Mapping[str, str] = field(default_factory=dict)

    def keeping(self, float_attentions: Mapping[str, str]) -> Emitted:
        """Return the same with these attentions in float."""
        return replace(self, float_attentions=float_attentions)


def save_for_engine(model: ir.Model, path: Path, passes: Sequence[ir.passes.PassBase] = ()) -> Emitted:
    """Write ``model``, which is used up, to ``path`` after ``passes``, with a list of its products in its metadata.

    Raises:
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    tidy(model)
    for each in passes:
        if each(model).modified:
            tidy(model)
    model.metadata_props[PRODUCTS] = products_note(products_in(model.graph))
    clear_facts(model.graph)
    return Emitted(save(model, path))
