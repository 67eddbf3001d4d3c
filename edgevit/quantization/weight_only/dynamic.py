"""Dynamic INT8: weights in 8 bits, activations quantized as they come, so that no images are needed beforehand.

Two forms, of the same weights:

- ``emit_dynamic`` for onnxruntime: com.microsoft's DynamicQuantizeMatMul, which takes the range of a layer's input,
  quantizes it and multiplies in integers, in one kernel. It is what ``quantize_dynamic`` becomes after fusion, written
  out, with one scale per output and the bias inside. The range is that of all images of a batch, so it is to be
  opened with images one by one.
- ``weights.emit_weights_int8`` for OpenVINO, which finds a range for each group of values of each token by itself,
  if it is opened with a group size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.backends.backend import Backend
from edgevit.errors import VerificationError
from edgevit.graph.editing import add_constant
from edgevit.graph.linears import LinearLayer
from edgevit.quantization.arithmetic import quantize_array, weight_scales
from edgevit.quantization.weight_only.replace import Replaced, replace_linears

_DOMAIN = "com.microsoft"


def emit_dynamic(model: ir.Model, path: Path) -> Replaced:
    """Write the float32 ``model``, which is used up, to ``path`` as dynamic INT8 for onnxruntime.

    Raises:
        GraphError: if it has no Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    return replace_linears(model, path, _replace)


def check_dynamic(backend: Backend, model: Path, settings: Mapping[str, str], images: NDArray[np.float32]) -> None:
    """Check that ``backend`` quantizes activations as they come, by what that does to the logits of ``images``.

    It does not tell which of its kernels do. But rounding leaves its mark: with ``float_activations`` the logits are
    others.

    Raises:
        VerificationError: if they are the same, as on processors without VNNI, where OpenVINO multiplies in float.

    """
    with (
        backend.open(model, threads=0, settings=settings, batch=len(images)) as rounding,
        backend.open(model, threads=0, settings={**settings, **backend.float_activations}, batch=len(images)) as exact,
    ):
        same = np.array_equal(rounding.infer(images), exact.infer(images))
    if same:
        raise VerificationError(
            f"{backend.name} does not quantize activations as they come on this processor",
            remedy="use --precision int8, or int8-weights for a small file",
        )


def _replace(graph: ir.Graph, layer: LinearLayer) -> list[ir.Node]:
    scales = weight_scales(layer.weight)
    graph.opset_imports[_DOMAIN] = 1
    return [
        ir.node(
            "DynamicQuantizeMatMul",
            [
                layer.input,
                add_constant(graph, f"{layer.name}.weight.int8", quantize_array(layer.weight, scales, np.int8(0))),
                add_constant(graph, f"{layer.name}.weight.scale", scales),
                None,  # the weights' zero point: 0
                None if layer.bias is None else add_constant(graph, f"{layer.name}.bias.float32", layer.bias),
            ],
            domain=_DOMAIN,
            name=layer.name,
        )
    ]
