"""Rotate the residual stream, so that no channel of what Linear layers read stands out.

Let x (..., D) be the stream that attention and MLP add to, and R an orthogonal matrix with 1 R = 1 for the vector of
ones. Then x R has the mean and the variance of x, and a LayerNorm without weight and bias gives LN(x R) = LN(x) R. So
all that writes to the stream can write x R, by W R and b R, and all that reads it behind a LayerNorm can read that, by
R^T diag(g) W and b + c W, which take over the LayerNorm's weight g and bias c. The model gives the same, at no cost
(SliceGPT, Ashkboos et al. 2024; QuaRot, Ashkboos et al. 2024).

Each channel of x R is a sum of all of x: nearly normally distributed, where a ViT's own have outliers, whose range
sets the step for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import float_constant, set_constant, set_linear
from edgevit.graph.linears import LinearLayer, as_it_is_now, find_linears
from edgevit.graph.patches import embedding_before
from edgevit.quantization.blas import one_blas_thread
from edgevit.quantization.rewrites.smoothing_mappings import (
    NormProducer,
    SmoothingMapping,
    keeps_channels,
    norm_mappings,
)

_SEED = 0


@dataclass(slots=True)
class _ResidualStream:
    """The stream's values, and what must change with them; ``constants`` are inputs of nodes, by their positions."""

    width: int
    values: set[ir.Value] = field(default_factory=set)
    norms: list[SmoothingMapping] = field(default_factory=list)
    consumers: list[LinearLayer] = field(default_factory=list)
    producers: list[LinearLayer] = field(default_factory=list)
    convolutions: list[ir.Node] = field(default_factory=list)
    constants: list[tuple[ir.Node, int]] = field(default_factory=list)


class _NotRotatableError(Exception):
    """Something reads or writes the stream that cannot take a rotation into its constants."""


def rotate_stream(graph: ir.Graph) -> bool:
    """Rotate the residual stream of ``graph``, always by the same matrix; say whether it could be.

    It is left as it is where anything else than LayerNorms and Linear layers reads it, or anything else than Linear
    layers, constants and the patch embedding's convolution writes it. Values must have shapes.
    """
    mappings = list(norm_mappings(graph))
    if not mappings:
        return False
    try:
        stream = _find(graph, mappings)
    except _NotRotatableError:
        return False
    with one_blas_thread():  # products so small take longer where threads wait for one another
        _rotate(graph, stream, rotation(stream.width))
    return True


def rotation(width: int) -> NDArray[np.float64]:
    """Return an orthogonal matrix (width, width) that maps the vector of ones to itself, random but always the same.

    H diag(1, Q) H, with the Householder reflection H that takes the first unit vector to the direction of the ones, and
    Q from the QR decomposition of normal random numbers.
    """
    ones = np.full(width, 1 / np.sqrt(width))
    first = np.zeros(width)
    first[0] = 1
    normal = first - ones
    mirror = np.eye(width) - (2 / (normal @ normal) * np.outer(normal, normal) if width > 1 else 0)
    # The old generator's numbers never change (NumPy's NEP 19): what was calibrated once must fit later.
    random = np.random.RandomState(_SEED).standard_normal((width - 1, width - 1))
    factor, upper = np.linalg.qr(random)
    inner = np.eye(width)
    inner[1:, 1:] = factor * np.sign(np.diag(upper))  # LAPACKs differ in the signs
    product: NDArray[np.float64] = mirror @ inner @ mirror
    return product


def _find(graph: ir.Graph, mappings: list[SmoothingMapping]) -> _ResidualStream:
    """Follow the stream from the first of the LayerNorms in ``mappings`` through all that takes part in it.

    Raises:
        _NotRotatableError: if something does that cannot.

    """
    norms = {mapping.producer.node: mapping for mapping in mappings if isinstance(mapping.producer, NormProducer)}
    layers = find_linears(graph)
    by_output = {layer.output: layer for layer in layers}
    by_product = {layer.matmul: layer for layer in layers}
    first = next(iter(norms))
    stream = _ResidualStream(len(_float(first, 1)))
    pending = [_given(first, 0)]
    while pending:
        value = pending.pop()
        if value in stream.values:
            continue
        stream.values.add(value)
        if value.is_graph_output() or value.producer() is None:
            raise _NotRotatableError
        pending += _written(stream, value, by_output)
        for node, index in value.uses():
            if node in norms and index == 0:
                _add_norm(stream, norms[node])
            elif node in by_product and index == 0:
                _expect(by_product[node].weight.shape[0] == stream.width)
                stream.consumers.append(by_product[node])
            elif _joins(node) or (keeps_channels(node) and index == 0):
                pending.append(node.outputs[0])
            elif node.op_type != "Shape":
                raise _NotRotatableError
    return stream


def _written(stream: _ResidualStream, value: ir.Value, by_output: dict[ir.Value, LinearLayer]) -> Iterator[ir.Value]:
    """Note what writes ``value``, and yield the values of the stream that it is made of."""
    node = value.producer()
    assert node is not None  # noqa: S101 - the caller looks
    layer, convolution = by_output.get(value), embedding_before(node)
    if layer is not None:
        _expect(layer.weight.shape[1] == stream.width)
        stream.producers.append(layer)
    elif convolution is not None:
        _expect(len(_float(convolution, 1)) == stream.width)
        stream.convolutions.append(convolution)
    else:
        joins = _joins(node)
        _expect(joins or node.op_type == "Expand" or keeps_channels(node))
        for index in range(len(node.inputs) if joins else 1):
            constant = float_constant(node.inputs[index])
            if constant is None:
                yield _given(node, index)
            else:
                _expect(constant.shape[-1:] == (stream.width,))
                stream.constants.append((node, index))


def _add_norm(stream: _ResidualStream, mapping: SmoothingMapping) -> None:
    assert isinstance(mapping.producer, NormProducer)  # noqa: S101 - the caller takes no other
    node = mapping.producer.node
    rank = len(node.inputs[0].shape or ()) if node.inputs[0] is not None else 0
    last = node.attributes.get_int("axis", -1) in (-1, rank - 1)
    bias = float_constant(node.inputs[2]) if len(node.inputs) > 2 else None
    _expect(last and len(_float(node, 1)) == stream.width)
    _expect(mapping.shiftable or bias is None or not bias.any())
    stream.norms.append(mapping)


def _joins(node: ir.Node) -> bool:
    """Say whether ``node`` adds values of the stream, or puts their tokens together."""
    if node.op_type == "Add":
        return not node.domain
    shape = node.outputs[0].shape
    if node.op_type != "Concat" or shape is None:
        return False
    return (
        node.attributes.get_int("axis", -1) % len(shape) < len(shape) - 1
    )  # along the last, it puts channels together


def _rotate(graph: ir.Graph, stream: _ResidualStream, matrix: NDArray[np.float64]) -> None:
    for mapping in stream.norms:
        assert isinstance(mapping.producer, NormProducer)  # noqa: S101 - _add_norm takes no other
        _empty_norm(graph, mapping.producer.node, mapping)
    for consumer in (*stream.consumers, *(consumer for mapping in stream.norms for consumer in mapping.consumers)):
        layer = as_it_is_now(consumer)
        set_linear(graph, layer, _float32(matrix.T @ layer.weight), layer.bias)
    for producer in stream.producers:
        layer = as_it_is_now(producer)
        bias = None if layer.bias is None else _float32(layer.bias @ matrix)
        set_linear(graph, layer, _float32(layer.weight @ matrix), bias)
    for node in stream.convolutions:
        set_constant(graph, node, 1, f"{node.name}.weight", _float32(np.tensordot(matrix, _float(node, 1), (0, 0))))
        if len(node.inputs) > 2:
            set_constant(graph, node, 2, f"{node.name}.bias", _float32(_float(node, 2) @ matrix))
    for node, index in stream.constants:
        set_constant(graph, node, index, str(_given(node, index).name), _float32(_float(node, index) @ matrix))


def _empty_norm(graph: ir.Graph, node: ir.Node, mapping: SmoothingMapping) -> None:
    """Give weight and bias of a LayerNorm to the layers that read it; a weight of 0 is no obstacle."""
    weight = _float(node, 1)
    bias = _float(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros_like(weight)
    for layer in map(as_it_is_now, mapping.consumers):
        of_layer = None if layer.bias is None else _float32(layer.bias + bias.astype(np.float64) @ layer.weight)
        set_linear(graph, layer, weight[:, None] * layer.weight, of_layer)
    name = node.name or str(node.outputs[0].name)
    set_constant(graph, node, 1, f"{name}.weight", np.ones_like(weight))
    set_constant(graph, node, 2, f"{name}.bias", np.zeros_like(weight))


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise _NotRotatableError
    return value


def _float(node: ir.Node, index: int) -> NDArray[np.float32]:
    constant = float_constant(node.inputs[index])
    _expect(constant is not None)
    assert constant is not None  # noqa: S101 - for the type checker
    return constant


def _expect(condition: bool) -> None:  # noqa: FBT001
    if not condition:
        raise _NotRotatableError


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)
