"""Make a Linear layer of the patch embedding, whose input is pixels.

A convolution whose stride is its kernel multiplies each patch by the same matrix. And what it reads is pixels,
normalised: 255 (s x + m), with the mean m and the deviation s of each channel, is one of 0..255. So the input is cut
into patches of such levels, which 8 bits hold without any error, and the weight takes the normalising over: what a
quantized patch embedding costs is the rounding of its weight alone.

What images hold beyond black and white is clipped, and what lies between two levels is rounded: nothing that was made
of 8-bit pixels does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.data.preprocess import Preprocess
from edgevit.graph.editing import add_constant, float_constant
from edgevit.graph.patches import embedding_before, groups, pads

#: The range of what the layer reads.
LEVELS = (0.0, 255.0)


def multiply_patches(graph: ir.Graph, preprocess: Preprocess) -> str | None:
    """Put a Linear layer in the place of the patch embedding of ``graph``; return its name, None where there is none.

    Its images must be normalised as ``preprocess`` says. The convolution stays where anything else reads the images, it
    pads them or its patches overlap, and where the sizes of values are not known.
    """
    for node in list(graph):
        convolution = embedding_before(node)
        weight = None if convolution is None else _weight_of_patches(convolution, preprocess)
        if convolution is not None and weight is not None:
            _replace(graph, convolution, node.outputs[0], weight, preprocess)
            return convolution.name
    return None


def _weight_of_patches(convolution: ir.Node, preprocess: Preprocess) -> NDArray[np.float32] | None:
    """Return the weight (D, C, P, Q) if ``convolution`` alone reads the images, and multiplies patches of P x Q."""
    images, weight = convolution.inputs[0], float_constant(convolution.inputs[1])
    if images is None or images.shape is None or not images.is_graph_input() or weight is None or not convolution.name:
        return None
    size, patch = tuple(images.shape)[1:], weight.shape[2:]
    attributes = convolution.attributes
    alone = [node for node in images.consumers() if node.op_type != "Shape"] == [convolution]
    whole = (
        not pads(convolution)
        and groups(convolution) == 1
        and tuple(attributes.get_ints("strides", ())) == patch
        and set(attributes.get_ints("dilations", (1,))) == {1}
    )
    fits = (
        len(patch) == 2
        and size == (preprocess.channels, *preprocess.size)
        and weight.shape[1] == preprocess.channels
        and all(side % step == 0 for side, step in zip(preprocess.size, patch, strict=True))
    )
    return weight if alone and whole and fits and _bias(convolution) is not None else None


def _bias(convolution: ir.Node) -> NDArray[np.float32] | None:
    """Return the bias (D,), one zero where there is none, and None where the file does not fix it."""
    given = convolution.inputs[2] if len(convolution.inputs) > 2 else None
    return np.zeros(1, dtype=np.float32) if given is None else float_constant(given)


def _replace(
    graph: ir.Graph, convolution: ir.Node, tokens: ir.Value, weight: NDArray[np.float32], preprocess: Preprocess
) -> None:
    """Compute ``tokens`` (B, N, D) of the images by a product."""
    images, name = convolution.inputs[0], str(convolution.name)
    assert images is not None and images.shape is not None  # noqa: S101, PT018 - the caller has looked
    batch, (width, channels, *patch) = images.shape[0], weight.shape
    down, across = (side // step for side, step in zip(preprocess.size, patch, strict=True))
    rows, columns = down * across, channels * patch[0] * patch[1]
    scale = 255 * np.asarray(preprocess.std, dtype=np.float64)[:, None, None]
    shift = 255 * np.asarray(preprocess.mean, dtype=np.float64)[:, None, None]
    scaled = weight / scale
    bias = np.asarray(_bias(convolution)) - (scaled * shift).sum(axis=(1, 2, 3))
    nodes: list[ir.Node] = []

    def compute(
        operator: str, suffix: str, constant: NDArray[np.generic] | None, shape: list[int], **attributes: list[int]
    ) -> None:
        """Add a node behind the last one, which gives ``shape`` for each image."""
        before = nodes[-1].outputs[0] if nodes else images
        inputs = [before] if constant is None else [before, add_constant(graph, f"{name}{suffix}.constant", constant)]
        nodes.append(ir.node(operator, inputs, attributes, name=f"{name}{suffix}"))
        output = nodes[-1].outputs[0]
        output.name, output.shape, output.type = f"{name}{suffix}.output", ir.Shape([batch, *shape]), images.type

    pixels = [channels, *preprocess.size]
    cut, beside = [channels, down, patch[0], across, patch[1]], [down, across, channels, *patch]
    compute("Mul", ".scale", scale.astype(np.float32), pixels)
    compute("Add", ".levels", shift.astype(np.float32), pixels)
    compute("Reshape", ".cut", np.array([0, *cut], dtype=np.int64), cut)
    compute("Transpose", ".patches", None, beside, perm=[0, 2, 4, 1, 3, 5])
    compute("Reshape", ".rows", np.array([0, rows, columns], dtype=np.int64), [rows, columns])
    compute("MatMul", "", scaled.reshape(width, columns).T.astype(np.float32), [rows, width])
    compute("Add", ".bias", bias.astype(np.float32), [rows, width])
    ir.convenience.replace_nodes_and_values(graph, convolution, [], nodes, [tokens], [nodes[-1].outputs[0]])
