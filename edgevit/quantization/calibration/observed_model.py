"""A model in onnxruntime with what its Linear layers and convolutions read as its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.backends.base import check_images
from edgevit.errors import GraphError
from edgevit.graph.convolutions import find_convolutions, fused_output
from edgevit.graph.linears import find_linears
from edgevit.graph.node_facts import before_fake_quant
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.prune_tokens import PruneToClassToken, pooled_token
from edgevit.graph.running import ENGINE_ERRORS, session_of
from edgevit.graph.saving import tidy
from edgevit.graph.weights import letting_go


class ObservedModel:
    """The model in onnxruntime, with the inputs of its Linear layers as its outputs.

    Tokens that the head does not look at are left out behind the last attention, as emitters leave them out: what is
    seen of the layers there is what counts. ``also`` gives further values to look at, by the names they shall have;
    ``layers`` and ``others`` are the names of both. With ``convolutions``, their inputs are among the layers', channels
    last, and what is behind them among the others, by names in ``outputs``. ``token`` is the one that the head looks
    at, None where that is not one.
    """

    def __init__(
        self,
        model: ir.Model,
        also: Callable[[ir.Graph], Mapping[str, ir.Value]] = lambda _: {},
        *,
        convolutions: bool = False,
    ) -> None:
        """Open ``model``, which stays as it is.

        Raises:
            GraphError: if it has no layers to observe, more inputs than one, or a fixed batch, or cannot be run.

        """
        with letting_go(model.clone()) as observed:
            graph = observed.graph
            InferShapes()(observed)  # files of others seldom say the shapes of values
            self.token = pooled_token(graph)
            PruneToClassToken()(observed)
            self.widths, layers = _inputs(graph)
            found = find_convolutions(graph) if convolutions else []
            self._channels_first = frozenset(each.name for each in found)
            self.widths += [each.channels for each in found]
            layers |= {each.name: each.input for each in found}
            self.outputs = {f"{each.name}.output": each.name for each in found}
            others = {**also(graph), **{f"{each.name}.output": fused_output(each) for each in found}}
            values = {**layers, **others}
            if convolutions and not layers:
                raise GraphError(
                    "the graph has no Linear layer, and no convolution that can be quantized",
                    remedy="give a float32 ViT, or a network with more convolutions than the one that reads the images",
                )
            if len(graph.inputs) != 1:
                raise GraphError(
                    f"the model has {len(graph.inputs)} inputs, not one", remedy="give a model that takes images alone"
                )
            self.layers, self.others = list(layers), list(others)
            self._values = {name: str(value.name) for name, value in values.items()}
            self._distinct = list(dict.fromkeys(self._values.values()))
            self._input = str(graph.inputs[0].name)
            _give(graph, list(dict.fromkeys(values.values())))
            tidy(observed)
            self._session = session_of(observed)
        shape = self._session.get_inputs()[0].shape
        self._shape = [size if isinstance(size, int) else None for size in shape]
        if self._shape and self._shape[0] is not None:
            raise GraphError(
                f"the model takes {self._shape[0]} images at a time and no other number",
                remedy="export it with a dynamic batch: dynamic_axes or dynamic_shapes of torch.onnx.export",
            )

    def run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return for one image (1, C, H, W) the input of each layer, then the other values."""
        check_images(image, self._shape)
        try:
            found = dict(zip(self._distinct, self._session.run(self._distinct, {self._input: image}), strict=True))
        except ENGINE_ERRORS as error:
            raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error
        return [
            np.moveaxis(found[value], 1, -1) if name in self._channels_first else found[value]
            for name, value in self._values.items()
        ]


def _inputs(graph: ir.Graph) -> tuple[list[int], dict[str, ir.Value]]:
    """Return how wide each Linear layer's input is, and by the layer's name what it is."""
    linears = find_linears(graph)
    return [len(layer.weight) for layer in linears], {layer.name: before_fake_quant(layer.input) for layer in linears}


def _give(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Let ``graph`` give ``values`` instead of what it gave."""
    graph.outputs.clear()
    graph.outputs.extend(values)
    for value in values:
        value.dtype = value.dtype or ir.DataType.FLOAT
