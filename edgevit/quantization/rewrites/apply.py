"""Apply the exact rewrites to a model's file, and say what ranges its Linear layers' inputs have then.

In the order in which ``prepare`` applies them: ``smooth`` for all, ``centre`` for signed activations, ``embed`` for
unsigned ones, ``add_residuals`` once the scales are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.data.preprocess import Preprocess
from edgevit.files import atomic_path, sha256_of
from edgevit.graph.linears import LinearLayer, as_it_is_now, find_linears, open_graph
from edgevit.graph.metadata import noted
from edgevit.graph.passes.prune_tokens import pooled_token
from edgevit.quantization.calibration.statistics import CalibrationTable, TensorStatistics
from edgevit.quantization.plan import QuantizationPlan, check_model_sha256
from edgevit.quantization.rewrites.activation_shift import shift_input
from edgevit.quantization.rewrites.attention_scale import fold_attention_scales
from edgevit.quantization.rewrites.channel_equalization import equalize_input, follows_activation
from edgevit.quantization.rewrites.patch_embedding import LEVELS, multiply_patches
from edgevit.quantization.rewrites.per_token_scale import LEAST, add_per_token_scale, has_per_token_scale
from edgevit.quantization.rewrites.residual import (
    add_residual_matmul,
    ending_layers,
    ends_mlp,
    residual_name,
    sees_token,
)
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.quantization.rewrites.smoothing import HEADROOM, ChannelStatistics, choose_equalization, choose_migration
from edgevit.quantization.rewrites.smoothing_mappings import find_smoothing_mappings
from edgevit.recipes import NO_REWRITES, Observer, Rewrites

#: An input is centred if that makes its largest magnitude smaller than this share of what it was.
_WORTH_SHIFTING = 0.75


def smooth(model: Path, table: CalibrationTable, path: Path, *, rewrites: Rewrites = NO_REWRITES) -> CalibrationTable:
    """Write ``model`` to ``path`` with its Linear layers' inputs shifted and scaled, channel by channel, for nothing.

    The residual stream is rotated first, if ``table`` is of that.
    How much is scaled ``rewrites.alpha`` says. ``table`` is what calibration saw of ``model``. Returns the ranges to
    expect of all Linear layers' inputs then.

    Raises:
        BundleError: if the table was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    check_model_sha256("this calibration table", table.model_sha256, model)
    channels = {name: one.channels for name, one in table.inputs.items() if one.channels is not None}
    assert rewrites.alpha != "auto"  # noqa: S101 - choose has found one
    alpha, inputs = rewrites.alpha, dict(table.inputs)
    with open_graph(model) as onnx_model:
        graph = onnx_model.graph
        table.check_layers({layer.name: len(layer.weight) for layer in find_linears(graph)})
        common.ShapeInferencePass()(onnx_model)  # files of others seldom say the shapes of values
        if table.rotated:
            rotate_stream(graph)
        for mapping in find_smoothing_mappings(graph):
            weights = [as_it_is_now(consumer).weight for consumer in mapping.consumers]
            migration = choose_migration(
                channels[mapping.consumers[0].name], weights, shiftable=mapping.shiftable, alpha=alpha
            )
            mapping.move(graph, migration.scale.astype(np.float32), migration.shift.astype(np.float32))
            for consumer in mapping.consumers:
                tokens = inputs[consumer.name].tokens
                inputs[consumer.name] = TensorStatistics.between(-migration.reach, migration.reach, tokens)
        fold_attention_scales(graph)  # last: the search for scales counts errors by how large outputs are
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path), rotated=False)


def _equalize_inputs(graph: ir.Graph, images: int, share: float, inputs: dict[str, TensorStatistics]) -> None:
    """Divide the widest channels behind activation functions; ``inputs`` gets the ranges that are left."""
    for layer, channels in _behind_activations(graph, images, inputs):
        narrowing = choose_equalization(channels, share)
        equalize_input(graph, layer, narrowing.scale.astype(np.float32))
        tokens = inputs[layer.name].tokens
        inputs[layer.name] = TensorStatistics.between(narrowing.low, narrowing.high, tokens)


def _add_per_token_scales(graph: ir.Graph, images: int, inputs: dict[str, TensorStatistics]) -> None:
    """Divide each token behind activation functions by its largest value; ``inputs`` gets the ranges that are left."""
    for layer, channels in _behind_activations(graph, images, inputs):
        if layer.bias is not None and layer.addition is None:
            continue  # a Gemm's own bias would be multiplied by the token's scale
        add_per_token_scale(graph, layer)
        low = HEADROOM * min(0.0, float(channels.minimum.min())) / LEAST
        inputs[layer.name] = TensorStatistics.between(low, 1.0, inputs[layer.name].tokens)


def _behind_activations(
    graph: ir.Graph, images: int, inputs: Mapping[str, TensorStatistics]
) -> Iterator[tuple[LinearLayer, ChannelStatistics]]:
    """Yield the layers that read what an activation function gives, with what calibration saw of its channels.

    Of layers that see a single token of each image too few values are known to tell which channels are wide.
    """
    for layer in find_linears(graph):
        seen = inputs[layer.name]
        if seen.channels is not None and seen.tokens > images and follows_activation(layer.input):
            yield layer, seen.channels


def centre(
    model: Path, table: CalibrationTable, path: Path, observer: Observer, rewrites: Rewrites = NO_REWRITES
) -> CalibrationTable:
    """Write ``model`` to ``path`` with an Add in front of each Linear layer whose input is one-sided.

    Behind an activation function channels are equalized first, if ``rewrites.channel_equalization`` asks for it.
    Returns the ranges that its layers' inputs have then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    inputs = dict(table.inputs)
    with open_graph(model) as onnx_model:
        if rewrites.channel_equalization:
            _equalize_inputs(onnx_model.graph, table.images, rewrites.channel_equalization, inputs)
        for layer in find_linears(onnx_model.graph):
            statistics = inputs[layer.name]
            low, high = statistics.range(observer)
            if layer.bias is not None and high - low < 2 * _WORTH_SHIFTING * max(abs(low), abs(high)):
                shift = (low + high) / 2
                shift_input(onnx_model.graph, layer, shift)
                inputs[layer.name] = statistics.shifted(shift)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path))


def embed(model: Path, table: CalibrationTable, path: Path, rewrites: Rewrites = NO_REWRITES) -> CalibrationTable:
    """Write ``model`` to ``path`` with a Linear layer in the place of its patch embedding, where it has one.

    Behind an activation function each token is divided by its largest value, or else the widest channels are divided,
    if ``rewrites`` ask for it.
    Returns the ranges that its layers' inputs have then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers, or its note on how images are preprocessed
            cannot be understood.
        StorageError: if the file cannot be written.

    """
    inputs = dict(table.inputs)
    with open_graph(model) as onnx_model:
        common.ShapeInferencePass()(onnx_model)
        preprocess = noted(onnx_model.metadata_props, "preprocess", Preprocess)
        name = None if preprocess is None else multiply_patches(onnx_model.graph, preprocess)
        if name is not None:
            inputs[name] = TensorStatistics.between(*LEVELS)
        if rewrites.per_token_scale:
            _add_per_token_scales(onnx_model.graph, table.images, inputs)
        elif rewrites.channel_equalization:
            _equalize_inputs(onnx_model.graph, table.images, rewrites.channel_equalization, inputs)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path))


def add_residuals(
    model: Path, table: CalibrationTable, plan: QuantizationPlan, rewrites: Rewrites, path: Path
) -> CalibrationTable:
    """Write ``model`` to ``path`` with a second product for the layers that ``rewrites`` asks for it.

    Returns the ranges that its layers' inputs have then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    inputs = dict(table.inputs)
    quantizations = {linear.name: linear.quantization for linear in plan.linears}
    with open_graph(model) as onnx_model:
        common.ShapeInferencePass()(onnx_model)
        for layer, token in _residual_layers(onnx_model.graph, table, rewrites):
            quantization = quantizations[layer.name]
            if quantization is not None:
                add_residual_matmul(onnx_model.graph, layer, quantization, token)
                half = quantization.activation_scale / 2
                inputs[residual_name(layer)] = TensorStatistics.between(-half, half)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path))


def _residual_layers(
    graph: ir.Graph, table: CalibrationTable, rewrites: Rewrites
) -> list[tuple[LinearLayer, int | None]]:
    """Return the layers to quantize twice, with the token to do so for, None for all that they see.

    Where the head reads one token of each image, the layers behind the last attention see that token alone: for them a
    second product is one row, too.
    """
    ending = ending_layers(graph)
    scaled = {layer.name for layer in ending if has_per_token_scale(layer)}
    chosen: dict[str, tuple[LinearLayer, int | None]] = {}
    token = pooled_token(graph)
    if token is not None and rewrites.residual_token_layers:
        mlps = [layer for layer in ending if ends_mlp(layer)]
        of_token = (layer for layer in mlps[-rewrites.residual_token_layers :] if sees_token(layer, token.number))
        chosen |= {layer.name: (layer, token.number) for layer in of_token}
    if rewrites.residual_token_layers:
        seen_once = {name for name, one in table.inputs.items() if one.tokens == table.images}
        chosen |= {layer.name: (layer, None) for layer in find_linears(graph) if layer.name in seen_once}
    chosen |= {layer.name: (layer, None) for layer in ending[: rewrites.residual_layers]}
    return [(layer, only) for layer, only in chosen.values() if layer.name not in scaled]


def save(model: ir.Model, path: Path) -> None:
    """Write an ONNX file without what its graph does not use.

    Raises:
        StorageError: if it cannot be written.

    """
    model.graph.sort()
    common.RemoveUnusedNodesPass()(model)
    with atomic_path(path) as draft:
        ir.save(model, draft)
