"""Apply the exact rewrites to a model's file, and say what ranges its Linear layers' inputs have then.

In the order in which ``prepare`` applies them: ``smooth`` for all, ``centre`` for signed activations, ``embed`` for
unsigned ones, ``refine`` once the scales are known.
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
from edgevit.graph.metadata import noted
from edgevit.quantization.emit.select_tokens import chosen_token
from edgevit.quantization.linears import LinearLayer, as_it_is_now, find_linears, open_graph
from edgevit.quantization.plan import QuantizationPlan, check_model_sha256
from edgevit.quantization.rewrites.attention_scale import fold_attention_scales
from edgevit.quantization.rewrites.centre import centre_input
from edgevit.quantization.rewrites.fine import ending_layers, ends_mlp, multiply_rest, rest_name, sees_token
from edgevit.quantization.rewrites.narrow import follows_activation, narrow_input
from edgevit.quantization.rewrites.patches import LEVELS, multiply_patches
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.quantization.rewrites.sites import find_sites
from edgevit.quantization.rewrites.tokens import LEAST, has_token_scale, scale_tokens
from edgevit.quantization.smoothing import HEADROOM, ChannelStatistics, choose_migration, choose_narrowing
from edgevit.quantization.table import CalibrationTable, TensorStatistics
from edgevit.recipes import NO_REWRITES, Observer, Rewrites

#: An input is centred if that makes its largest magnitude smaller than this share of what it was.
_WORTH_CENTRING = 0.75


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
        for site in find_sites(graph):
            weights = [as_it_is_now(reader).weight for reader in site.readers]
            migration = choose_migration(channels[site.readers[0].name], weights, shiftable=site.shiftable, alpha=alpha)
            site.move(graph, migration.scale.astype(np.float32), migration.shift.astype(np.float32))
            for reader in site.readers:
                tokens = inputs[reader.name].tokens
                inputs[reader.name] = TensorStatistics.between(-migration.reach, migration.reach, tokens)
        fold_attention_scales(graph)  # last: the search for scales counts errors by how large outputs are
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path), rotated=False)


def _narrow_inputs(graph: ir.Graph, images: int, share: float, inputs: dict[str, TensorStatistics]) -> None:
    """Divide the widest channels behind activation functions; ``inputs`` gets the ranges that are left."""
    for layer, channels in _behind_activations(graph, images, inputs):
        narrowing = choose_narrowing(channels, share)
        narrow_input(graph, layer, narrowing.scale.astype(np.float32))
        tokens = inputs[layer.name].tokens
        inputs[layer.name] = TensorStatistics.between(narrowing.low, narrowing.high, tokens)


def _scale_tokens(graph: ir.Graph, images: int, inputs: dict[str, TensorStatistics]) -> None:
    """Divide each token behind activation functions by its largest value; ``inputs`` gets the ranges that are left."""
    for layer, channels in _behind_activations(graph, images, inputs):
        if layer.bias is not None and layer.addition is None:
            continue  # a Gemm's own bias would be multiplied by the token's scale
        scale_tokens(graph, layer)
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

    Behind an activation function the widest channels are divided first, if ``rewrites.narrow`` asks for it.
    Returns the ranges that its layers' inputs have then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    inputs = dict(table.inputs)
    with open_graph(model) as onnx_model:
        if rewrites.narrow:
            _narrow_inputs(onnx_model.graph, table.images, rewrites.narrow, inputs)
        for layer in find_linears(onnx_model.graph):
            statistics = inputs[layer.name]
            low, high = statistics.range(observer)
            if layer.bias is not None and high - low < 2 * _WORTH_CENTRING * max(abs(low), abs(high)):
                shift = (low + high) / 2
                centre_input(onnx_model.graph, layer, shift)
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
        if rewrites.token_scale:
            _scale_tokens(onnx_model.graph, table.images, inputs)
        elif rewrites.narrow:
            _narrow_inputs(onnx_model.graph, table.images, rewrites.narrow, inputs)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path))


def refine(
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
        for layer, token in _to_refine(onnx_model.graph, table, rewrites):
            quantization = quantizations[layer.name]
            if quantization is not None:
                multiply_rest(onnx_model.graph, layer, quantization, token)
                half = quantization.activation_scale / 2
                inputs[rest_name(layer)] = TensorStatistics.between(-half, half)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path))


def _to_refine(graph: ir.Graph, table: CalibrationTable, rewrites: Rewrites) -> list[tuple[LinearLayer, int | None]]:
    """Return the layers to refine, with the token to do so for, None for all that they see.

    Where the head reads one token of each image, the layers behind the last attention see that token alone: for them a
    second product is one row, too.
    """
    ending = ending_layers(graph)
    scaled = {layer.name for layer in ending if has_token_scale(layer)}
    chosen: dict[str, tuple[LinearLayer, int | None]] = {}
    token = chosen_token(graph)
    if token is not None and rewrites.fine_token:
        mlps = [layer for layer in ending if ends_mlp(layer)]
        of_token = (layer for layer in mlps[-rewrites.fine_token :] if sees_token(layer, token.number))
        chosen |= {layer.name: (layer, token.number) for layer in of_token}
    if rewrites.fine_token:
        seen_once = {name for name, one in table.inputs.items() if one.tokens == table.images}
        chosen |= {layer.name: (layer, None) for layer in find_linears(graph) if layer.name in seen_once}
    chosen |= {layer.name: (layer, None) for layer in ending[: rewrites.fine]}
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
