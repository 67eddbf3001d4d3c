"""Weight-only INT8 and INT4: small files, and no images needed; activations stay float, or as the engine likes.

INT8: one scale per output, in standard ONNX: DequantizeLinear in front of MatMul. onnxruntime and OpenVINO keep the
integers in memory and unpack them as they multiply.

INT4: blocks of ``BLOCK`` weights of one output, each with a scale and a zero point, as com.microsoft's MatMulNBits,
which both engines take.

What else is large, such as the patch embedding and the scales of INT4, is stored as float16 and cast to float32, which
the engines do once, when they load the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.backends.base import Session
from edgevit.bundle.manifest import Kernels
from edgevit.errors import VerificationError
from edgevit.graph.editing import add_constant
from edgevit.graph.linears import LinearLayer
from edgevit.quantization.arithmetic import quantize_array, weight_scales
from edgevit.quantization.float16.scan import Scan
from edgevit.quantization.kernel_check import kernels_of
from edgevit.quantization.weight_only.replace import Replaced, replace_linears

#: Weights that share a scale in INT4. With 16, the scales take half as much again as the weights.
BLOCK = 32

_BITS = 4
_LEVELS = 2**_BITS - 1
#: How far the range of a block may be narrowed, at either end, to make its weights' squared error smaller; a choice of
#: how long to search (`--precision int4-weights` of benchmarks/ablations.py).
SHRINKS = np.linspace(1.0, 0.7, 7, dtype=np.float32)
_LARGE = 1024  # numbers; what is smaller is not worth a Cast
_DOMAIN = "com.microsoft"
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level: the least precise arithmetic that the engine may choose


class Blocks(NamedTuple):
    """A weight (K, N) in INT4: ``values`` (N, blocks, BLOCK) in 0..15, ``scales`` and ``zero_points`` (N, blocks)."""

    values: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]

    def dequantize(self, rows: int) -> NDArray[np.float32]:
        """Return the weight (``rows``, N) that these integers stand for."""
        steps = self.values.astype(np.float32) - self.zero_points[..., None]
        outputs = len(self.values)
        weight: NDArray[np.float32] = (steps * self.scales[..., None]).reshape(outputs, -1)[:, :rows].T
        return weight


def quantize_blocks(weight: NDArray[np.float32]) -> Blocks:
    """Return ``weight`` (K, N) in INT4, by the range of each block that gives the smallest squared error.

    The last block of an output is filled up with zeros. Each range holds 0, which is then exact.
    """
    rows, outputs = weight.shape
    padded = np.zeros((outputs, -(-rows // BLOCK) * BLOCK), dtype=np.float32)
    padded[:, :rows] = weight.T
    blocks = padded.reshape(outputs, -1, BLOCK)
    low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
    best = _rounded(blocks, low, high)
    least = _errors(blocks, best)
    for shrink_low in SHRINKS:
        for shrink_high in SHRINKS:
            found = _rounded(blocks, low * shrink_low, high * shrink_high)
            errors = _errors(blocks, found)
            better = errors < least
            least = np.where(better, errors, least)
            best = Blocks(
                np.where(better[..., None], found.values, best.values),
                np.where(better, found.scales, best.scales),
                np.where(better, found.zero_points, best.zero_points),
            )
    return best


def _rounded(blocks: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> Blocks:
    scales = ((high - low) / np.float32(_LEVELS)).astype(np.float32)
    scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)
    zero_points = np.clip(np.rint(-low / scales), 0, _LEVELS)
    steps = np.rint(blocks / scales[..., None]) + zero_points[..., None]
    return Blocks(np.clip(steps, 0, _LEVELS).astype(np.uint8), scales, zero_points.astype(np.uint8))


def _errors(blocks: NDArray[np.float32], found: Blocks) -> NDArray[np.float32]:
    steps = found.values.astype(np.float32) - found.zero_points[..., None]
    errors: NDArray[np.float32] = ((steps * found.scales[..., None] - blocks) ** 2).sum(axis=2)
    return errors


def pack_nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``values`` (..., n) in 0..15 two to a byte, the first in the lower half; an odd last one goes alone."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    packed: NDArray[np.uint8] = values[..., 0::2] | (values[..., 1::2] << np.uint8(_BITS))
    return packed


def emit_weights_int8(model: ir.Model, path: Path) -> Replaced:
    """Write the float32 ``model``, which is used up, to ``path`` with its Linear layers' weights in INT8.

    Raises:
        GraphError: if it has no Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    return replace_linears(model, path, _int8, _halve_constants)


def emit_weights_int4(model: ir.Model, path: Path) -> Replaced:
    """Write the float32 ``model``, which is used up, to ``path`` with its Linear layers' weights in INT4.

    Raises:
        GraphError: if it has no Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    return replace_linears(model, path, _int4, _halve_constants)


def check_packed(session: Session, layers: int) -> Kernels:
    """Return which arithmetic the backend runs the model's Linear layers in, of which there are ``layers``.

    Raises:
        VerificationError: if it has unpacked a weight, so that a small file takes as much memory as a float one, or
            does not show as many layers.

    """
    kernels = session.linear_kernels()
    unpacked = [kernel for kernel in kernels if "int" not in kernel.weight]
    if unpacked or len(kernels) < layers:
        named = ", ".join(f"'{kernel.layer}' ({kernel.kernel}, {kernel.weight})" for kernel in unpacked[:5])
        raise VerificationError(
            f"{len(kernels) - len(unpacked)} of {layers} Linear layers keep their weights in integers"
            + (f"; others do not: {named}" if named else ""),
            remedy="use --precision int8, or a newer version of this engine",
        )
    return kernels_of(kernels)


def _int8(graph: ir.Graph, layer: LinearLayer) -> list[ir.Node]:
    scales = weight_scales(layer.weight)
    weight = ir.node(
        "DequantizeLinear",
        [
            add_constant(graph, f"{layer.name}.weight.int8", quantize_array(layer.weight, scales, np.int8(0))),
            add_constant(graph, f"{layer.name}.weight.scale", scales),
        ],
        attributes={"axis": 1},
        name=f"{layer.name}.weight.dequantize",
    )
    weight.outputs[0].name = f"{layer.name}.weight.dequantize"
    product = ir.node("MatMul", [layer.input, weight.outputs[0]], name=layer.name)
    return [weight, product, *_add_bias(graph, layer, product)]


def _int4(graph: ir.Graph, layer: LinearLayer) -> list[ir.Node]:
    rows, outputs = layer.weight.shape
    blocks = quantize_blocks(layer.weight)
    product = ir.node(
        "MatMulNBits",
        [
            layer.input,
            add_constant(graph, f"{layer.name}.weight.int4", pack_nibbles(blocks.values)),
            add_constant(graph, f"{layer.name}.weight.scale", blocks.scales),
            add_constant(graph, f"{layer.name}.weight.zero_point", pack_nibbles(blocks.zero_points)),
        ],
        attributes={
            "K": rows,
            "N": outputs,
            "bits": _BITS,
            "block_size": BLOCK,
            "accuracy_level": _INT8_ACTIVATIONS,
        },
        domain=_DOMAIN,
        name=layer.name,
    )
    graph.opset_imports[_DOMAIN] = 1
    return [product, *_add_bias(graph, layer, product)]


def _halve_constants(graph: ir.Graph) -> None:
    """Store the large float32 constants that fit float16 as such; vectors, which are small, stay."""
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2 or tensor.size < _LARGE:
            continue
        scan = Scan()
        scan.update(tensor.numpy())
        if scan.unfit_reason() is None:
            name = str(value.name)
            del graph.initializers[name]
            half = add_constant(graph, f"{name}.float16", tensor.numpy().astype(np.float16))
            node = ir.node("Cast", [half], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{name}.cast")
            (cast,) = node.outputs
            cast.name, cast.shape, cast.dtype = name, value.shape, value.dtype
            value.replace_all_uses_with(cast)
            graph.append(node)


def _add_bias(graph: ir.Graph, layer: LinearLayer, product: ir.Node) -> list[ir.Node]:
    if layer.bias is None:
        return []
    product.outputs[0].name = f"{layer.name}.product"
    bias = add_constant(graph, f"{layer.name}.bias.float32", layer.bias)
    return [ir.node("Add", [product.outputs[0], bias], name=f"{layer.name}.add_bias")]
