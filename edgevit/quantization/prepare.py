"""From a float32 model and calibration images to a model that is ready to be rounded, and how to round it.

Two passes over the images, each in memory that does not depend on their number:

1. what each channel of each Linear layer's input does, for the exact rewrites (``rewrites/``, ``smoothing``) and for
   the ranges, from which the plan's scales follow (``plan``);
2. moments of the quantized inputs, with which weights are rounded and biases corrected (``rounding``).

What comes out is a float32 ONNX file, the *prepared* model, whose quantized weights lie on the grid of their scales
already, and the plan that belongs to it. Emitters need nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgevit.backends.base import layer_of
from edgevit.errors import VerificationError
from edgevit.files import atomic_path, scratch_folder, sha256_of
from edgevit.progress import SILENT, Progress
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.attention import operands_of, plan_attentions
from edgevit.quantization.calibrate import ObservedModel, calibrate, observe
from edgevit.quantization.emit.select_tokens import chosen_token
from edgevit.quantization.judge import Judge
from edgevit.quantization.linears import LinearLayer, as_it_is_now, find_linears, open_graph
from edgevit.quantization.observers import RangeObserver
from edgevit.quantization.plan import LinearPlan, QuantizationPlan, check_model_sha256, make_plan
from edgevit.quantization.rewrites.attention_scale import fold_attention_scales
from edgevit.quantization.rewrites.centre import centre_input
from edgevit.quantization.rewrites.constants import set_linear
from edgevit.quantization.rewrites.fine import ending_layers, ends_mlp, multiply_rest, rest_name, sees_token
from edgevit.quantization.rewrites.narrow import follows_activation, narrow_input
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.quantization.rewrites.sites import find_sites
from edgevit.quantization.rounding import Moments, round_linear
from edgevit.quantization.smoothing import choose_migration, choose_narrowing
from edgevit.quantization.table import CalibrationTable, TensorStatistics
from edgevit.recipes import NO_REWRITES, Observer, Rewrites

#: An input is centred if that makes its largest magnitude smaller than this share of what it was.
_WORTH_CENTRING = 0.75

_CHECKED = 4  # images that the rewritten model is compared on
_TOLERANCE = 1e-3  # of the largest logit; float32 in another order differs by about 1e-6 of it


@dataclass(frozen=True, slots=True)
class CalibrationImages:
    """Calibration images that can be read again and again: ``read`` yields (B, C, H, W), ``batches`` times."""

    read: Callable[[], Iterable[NDArray[np.float32]]]
    batches: int
    progress: Progress = SILENT

    def track(self, label: str) -> Iterable[NDArray[np.float32]]:
        """Yield all batches and report on it as ``label``."""
        return self.progress.track(self.read(), total=self.batches, label=label)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared model, and the plan that was made for it."""

    model: Path
    plan: QuantizationPlan


def prepare(
    model: Path,
    images: CalibrationImages,
    places: Mapping[Scheme, Path],
    *,
    table: CalibrationTable | None = None,
    unrounded: Mapping[Scheme, Path] = MappingProxyType({}),
    observer: Observer = "minmax",
    rewrites: Rewrites = NO_REWRITES,
) -> tuple[CalibrationTable, dict[Scheme, Prepared]]:
    """Prepare the float32 ONNX file ``model`` for INT8, and write what comes out for each scheme to its place.

    ``table`` is what calibration saw of the model on ``images``; None lets it look. ``observer`` reads the range off
    the inputs that cannot be shifted and scaled. Returns what calibration saw, and for each scheme the prepared model
    with its plan. The models with weights as they were before rounding go to ``unrounded``, where that is given for a
    scheme.

    Raises:
        BundleError: if the table was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers, or an activation is not finite.
        DataError: if there are no images, or they do not fit.
        VerificationError: if the rewritten model gives other logits.
        StorageError: if a file cannot be written.

    """
    source = sha256_of(model)
    table = table or calibrate(model, images.read(), total=images.batches, rotated=True, progress=images.progress)
    prepared: dict[Scheme, Prepared] = {}
    with scratch_folder() as scratch:
        smoothed = scratch / "smoothed.onnx"
        ranges = smooth(model, table, smoothed, rewrites=rewrites)
        check_rewritten(model, smoothed, images)
        for scheme, path in places.items():
            base, plan = plan_scheme(smoothed, ranges, scheme, observer, rewrites, scratch)
            plan = round_weights(base, plan, images, path)
            if scheme in unrounded:
                shutil.copyfile(base, unrounded[scheme])
            prepared[scheme] = Prepared(path, msgspec.structs.replace(plan, source_sha256=source))
    return table, prepared


def plan_scheme(
    smoothed: Path, ranges: CalibrationTable, scheme: Scheme, observer: Observer, rewrites: Rewrites, folder: Path
) -> tuple[Path, QuantizationPlan]:
    """Return the model to round, and its plan; ``smoothed`` and ``ranges`` are what ``smooth`` made.

    Signed activations are centred. What is written goes to ``folder``.
    """
    base = smoothed
    if scheme == "symmetric":
        base = folder / "centred.onnx"
        ranges = centre(smoothed, ranges, base, observer)
    plan = make_plan(base, ranges, scheme=scheme, observer=observer)
    if not rewrites.fine and not rewrites.fine_token:
        return base, plan
    refined = folder / f"refined-{scheme}.onnx"
    ranges = refine(base, ranges, plan, rewrites, refined)
    return refined, make_plan(refined, ranges, scheme=scheme, observer=observer)


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
    chosen: dict[str, tuple[LinearLayer, int | None]] = {}
    token = chosen_token(graph)
    if token is not None and rewrites.fine_token:
        mlps = [layer for layer in ending if ends_mlp(layer)]
        of_token = (layer for layer in mlps[-rewrites.fine_token :] if sees_token(layer, token))
        chosen |= {layer.name: (layer, token) for layer in of_token}
    if rewrites.fine_token:
        seen_once = {name for name, one in table.inputs.items() if one.tokens == table.images}
        chosen |= {layer.name: (layer, None) for layer in find_linears(graph) if layer.name in seen_once}
    chosen |= {layer.name: (layer, None) for layer in ending[: rewrites.fine]}
    return list(chosen.values())


def check_rewritten(model: Path, rewritten: Path, images: CalibrationImages) -> None:
    """Check on the first calibration images that ``rewritten`` gives the logits of ``model``.

    Raises:
        VerificationError: if it does not.

    """
    judge = Judge(model, [next(iter(images.read()))[:_CHECKED]])
    expected, found = judge.reference, judge.outputs(rewritten)
    difference = float(np.abs(expected - found).max())
    if not difference <= _TOLERANCE * float(np.abs(expected).max()):
        raise VerificationError(
            f"rewriting the model before quantization changed its logits by {difference:g}",
            remedy="report it with the model's architecture: an exact rewrite took it for another",
        )


def smooth(model: Path, table: CalibrationTable, path: Path, *, rewrites: Rewrites = NO_REWRITES) -> CalibrationTable:
    """Write ``model`` to ``path`` with its Linear layers' inputs shifted and scaled, channel by channel, for nothing.

    The residual stream is rotated first, if ``table`` is of that.
    Of inputs behind a GELU the widest channels are divided, if ``rewrites.narrow`` asks for it.
    ``table`` is what calibration saw of ``model``. Returns the ranges to expect of all Linear layers' inputs then.

    Raises:
        BundleError: if the table was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    check_model_sha256("this calibration table", table.model_sha256, model)
    channels = {name: one.channels for name, one in table.inputs.items() if one.channels is not None}
    inputs = dict(table.inputs)
    with open_graph(model) as onnx_model:
        graph = onnx_model.graph
        table.check_layers({layer.name: len(layer.weight) for layer in find_linears(graph)})
        common.ShapeInferencePass()(onnx_model)  # files of others seldom say the shapes of values
        if table.rotated:
            rotate_stream(graph)
        for site in find_sites(graph):
            weights = [as_it_is_now(reader).weight for reader in site.readers]
            migration = choose_migration(channels[site.readers[0].name], weights, shiftable=site.shiftable)
            site.move(graph, migration.scale.astype(np.float32), migration.shift.astype(np.float32))
            for reader in site.readers:
                tokens = inputs[reader.name].tokens
                inputs[reader.name] = TensorStatistics.between(-migration.reach, migration.reach, tokens)
        fold_attention_scales(graph)  # last: the search for scales counts errors by how large outputs are
        if rewrites.narrow:
            _narrow_inputs(graph, table, rewrites.narrow, inputs)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path), rotated=False)


def _narrow_inputs(graph: ir.Graph, table: CalibrationTable, share: float, inputs: dict[str, TensorStatistics]) -> None:
    """Divide the widest channels of what follows an activation function; ``inputs`` gets the ranges that are left.

    Of layers that see a single token of each image too few values are known to tell which channels are wide.
    """
    for layer in find_linears(graph):
        seen = table.inputs[layer.name]
        if seen.channels is not None and seen.tokens > table.images and follows_activation(layer.input):
            narrowing = choose_narrowing(seen.channels, share)
            narrow_input(graph, layer, narrowing.scale.astype(np.float32))
            inputs[layer.name] = TensorStatistics.between(narrowing.low, narrowing.high, seen.tokens)


def centre(model: Path, table: CalibrationTable, path: Path, observer: Observer) -> CalibrationTable:
    """Write ``model`` to ``path`` with an Add in front of each Linear layer whose input is one-sided.

    Returns the ranges that its layers' inputs have then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    inputs = dict(table.inputs)
    with open_graph(model) as onnx_model:
        for layer in find_linears(onnx_model.graph):
            statistics = inputs[layer.name]
            low, high = statistics.range(observer)
            if layer.bias is not None and high - low < 2 * _WORTH_CENTRING * max(abs(low), abs(high)):
                shift = (low + high) / 2
                centre_input(onnx_model.graph, layer, shift)
                inputs[layer.name] = statistics.shifted(shift)
        save(onnx_model, path)
    return msgspec.structs.replace(table, inputs=inputs, model_sha256=sha256_of(path))


def round_weights(model: Path, plan: QuantizationPlan, images: CalibrationImages, path: Path) -> QuantizationPlan:
    """Write ``model`` to ``path`` with the weights of the layers that ``plan`` quantizes rounded; return its plan.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the model cannot be run.
        DataError: if there are no images.
        StorageError: if the file cannot be written.

    """
    plan.check_model(model)
    moments, operands = _observe_rounded(model, plan, images)
    linears = {linear.name: linear for linear in plan.linears}
    with open_graph(model) as onnx_model:
        layers = {layer.name: layer for layer in find_linears(onnx_model.graph)}
        for name in list(moments):
            layer = layers.pop(name)
            rounded = round_linear(layer.weight, moments.pop(name))  # its memory is free again
            set_linear(onnx_model.graph, layer, rounded.weight, layer.bias)
            linears[name] = _with_weights(linears[name], rounded.scales, rounded.correction)
            rest = layers.pop(rest_name(layer), None)
            if rest is not None:  # the same weights; what the whole layer's bias makes up for, this has back
                rest.product.replace_input_with(1, layer.product.inputs[1])
                linears[rest.name] = _with_weights(linears[rest.name], rounded.scales, -rounded.of_input)
        save(onnx_model, path)
    return msgspec.structs.replace(
        plan, model_sha256=sha256_of(path), linears=tuple(linears.values()), attentions=plan_attentions(operands)
    )


def _observe_rounded(
    model: Path, plan: QuantizationPlan, images: CalibrationImages
) -> tuple[dict[str, Moments], dict[str, TensorStatistics]]:
    """Return the moments of each layer's input that ``plan`` quantizes, and the ranges of what attention multiplies.

    The engine, which holds all weights, is gone then: the moments are as large.
    """
    engine = ObservedModel(model, operands_of)
    widths = dict(zip(engine.layers, engine.widths, strict=True))
    moments = {
        linear.name: Moments(linear.quantization, widths[linear.name], engine.token)
        for linear in plan.linears
        if linear.quantization and layer_of(linear.name) == linear.name
    }
    operands = {name: RangeObserver() for name in engine.others}
    observe(engine, {**moments, **operands}, images.track("Rounding weights"))
    return moments, {name: range_.statistics() for name, range_ in operands.items()}


def _with_weights(linear: LinearPlan, scales: NDArray[np.float32], correction: NDArray[np.float64]) -> LinearPlan:
    assert linear.quantization is not None  # noqa: S101 - the caller looks
    quantization = msgspec.structs.replace(
        linear.quantization, weight_scales=tuple(scales.tolist()), bias_correction=tuple(correction.tolist())
    )
    return msgspec.structs.replace(linear, quantization=quantization)


def save(model: ir.Model, path: Path) -> None:
    """Write an ONNX file without what its graph does not use.

    Raises:
        StorageError: if it cannot be written.

    """
    model.graph.sort()
    common.RemoveUnusedNodesPass()(model)
    with atomic_path(path) as draft:
        ir.save(model, draft)
