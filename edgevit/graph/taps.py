"""A model in onnxruntime that gives values from its inside, too, or instead of what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.graph.running import ENGINE_ERRORS, session_of
from edgevit.graph.saving import tidy
from edgevit.graph.weights import letting_go


class TappedModel:
    """The model in onnxruntime, with the values called ``names`` as its outputs."""

    def __init__(self, model: ir.Model | Path, names: Sequence[str]) -> None:
        """Open ``model``, which stays as it is, or is a file.

        Raises:
            GraphError: if it cannot be read or run, or has no such values.

        """
        self._names = list(dict.fromkeys(names))
        with letting_go(_read(model) if isinstance(model, Path) else model.clone()) as tapped:
            graph = tapped.graph
            made = {str(value.name): value for node in graph for value in node.outputs}
            missing = [name for name in self._names if name not in made]
            if missing or not self._names:
                raise GraphError(
                    f"the model has no value {', '.join(missing) or 'to look at'}", remedy="export the model again"
                )
            graph.outputs.clear()
            for name in self._names:
                made[name].dtype = made[name].dtype or ir.DataType.FLOAT
                graph.outputs.append(made[name])
            tidy(tapped)
            self._input = str(graph.inputs[0].name)
            self._session = session_of(tapped)

    def run(self, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return each value for one image (1, C, H, W), as float32.

        Raises:
            GraphError: if the model cannot be run.

        """
        try:
            found = self._session.run(self._names, {self._input: image})
        except ENGINE_ERRORS as error:
            raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error
        return {name: np.asarray(value, dtype=np.float32) for name, value in zip(self._names, found, strict=True)}


def _read(path: Path) -> ir.Model:
    """Read a file for an engine: it need not be well-formed by ONNX's checker, which knows no operators of others."""
    import onnx

    try:
        return ir.serde.from_proto(onnx.load(str(path), load_external_data=False))
    except (ir.serde.SerdeError, OSError, ValueError, TypeError) as error:
        raise GraphError(f"{path} cannot be read: {error}", remedy="build this variant again") from error
