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

from edgevit.backends import get_backend
from edgevit.errors import VerificationError
from edgevit.files import atomic_path, scratch_folder, sha256_of
from edgevit.progress import SILENT, Progress
from edgevit.quantization.attention import operands_of, plan_attentions
from edgevit.quantization.calibrate import ObservedModel, observe
from edgevit.quantization.linears import LinearLayer, as_it_is_now, find_linears, load_graph
from edgevit.quantization.observers import ChannelObserver, InputObserver, RangeObserver
from edgevit.quantization.plan import LinearPlan, QuantizationPlan, Scheme, make_plan
from edgevit.quantization.rewrites.centre import centre_input
from edgevit.quantization.rewrites.constants import set_linear
from edgevit.quantization.rewrites.scores import balance_scores, fold_scales, tokens_of
from edgevit.quantization.rewrites.sites import find_sites
from edgevit.quantization.rewrites.split import source_of, split_input, wide_name
from edgevit.quantization.rounding import Moments, round_linear
from edgevit.quantization.smoothing import choose_migration
from edgevit.quantization.table import CalibrationTable, TensorStatistics
from edgevit.recipes import Observer

#: An input is centred if that makes its largest magnitude smaller than this share of what it was.
_WORTH_CENTRING = 0.75

#: A layer's inputs are split only if there are so many times more of them than go into the small part.
_SPLIT_FROM = 8

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
    unrounded: Mapping[Scheme, Path] = MappingProxyType({}),
    observer: Observer = "minmax",
    split: int = 0,
) -> tuple[CalibrationTable, dict[Scheme, Prepared]]:
    """Prepare the float32 ONNX file ``model`` for INT8, and write what comes out for each scheme to its place.

    ``observer`` reads the range off the inputs that cannot be shifted and scaled; ``split`` is as in ``smooth``.
    The models with weights as they were before rounding go to ``unrounded``, where that is given for a scheme.
    Returns the ranges that calibration saw, and for each scheme the prepared model with its plan.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers, or an activation is not finite.
        DataError: if there are no images, or they do not fit.
        VerificationError: if the rewritten model gives other logits.
        StorageError: if a file cannot be written.

    """
    source = sha256_of(model)
    prepared: dict[Scheme, Prepared] = {}
    with scratch_folder() as scratch:
        smoothed = scratch / "smoothed.onnx"
        table = smooth(model, images, smoothed, split=split)
        check_rewritten(model, smoothed, images)
        for scheme, path in places.items():
            base, ranges = smoothed, table
            if scheme == "symmetric":
                base = scratch / "centred.onnx"
                ranges = centre(smoothed, table, base, observer)
            plan = make_plan(base, ranges, scheme=scheme, observer=observer)
            plan = round_weights(base, plan, images, path)
            if scheme in unrounded:
                shutil.copyfile(base, unrounded[scheme])
            prepared[scheme] = Prepared(path, msgspec.structs.replace(plan, source_sha256=source))
    return table, prepared


def check_rewritten(model: Path, rewritten: Path, images: CalibrationImages) -> None:
    """Check on the first calibration images that ``rewritten`` gives the logits of ``model``.

    Raises:
        VerificationError: if it does not.

    """
    backend = get_backend("onnxruntime")
    batch = next(iter(images.read()))[:_CHECKED]
    with (
        backend.open(model, threads=0, settings={}) as before,
        backend.open(rewritten, threads=0, settings={}) as after,
    ):
        expected, found = before.infer(batch), after.infer(batch)
    difference = float(np.abs(expected - found).max())
    if not difference <= _TOLERANCE * float(np.abs(expected).max()):
        raise VerificationError(
            f"rewriting the model before quantization changed its logits by {difference:g}",
            remedy="report it with the model's architecture: an exact rewrite took it for another",
        )


def smooth(model: Path, images: CalibrationImages, path: Path, *, split: int = 0) -> CalibrationTable:
    """Write ``model`` to ``path`` with its Linear layers' inputs shifted and scaled, channel by channel, for nothing.

    Of inputs that can only be put in another order, the ``split`` widest channels get a product of their own. Returns
    the ranges to expect of all Linear layers' inputs then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers, or an activation is not finite.
        DataError: if there are no images, or they do not fit.
        StorageError: if the file cannot be written.

    """
    onnx_model = load_graph(model)
    common.ShapeInferencePass()(onnx_model)  # files of others seldom say the shapes of values
    engine = ObservedModel(model, tokens_of)
    observers = {name: InputObserver() for name in engine.layers}
    tokens = {name: ChannelObserver() for name in engine.others}
    seen = observe(engine, {**observers, **tokens}, images.track("Calibrating"))
    inputs = {name: observer.range.statistics() for name, observer in observers.items()}
    for site in find_sites(onnx_model.graph):
        channels = observers[site.readers[0].name].channels.statistics()
        weights = [as_it_is_now(reader).weight for reader in site.readers]
        migration = choose_migration(channels, weights, shiftable=site.shiftable)
        site.move(onnx_model.graph, migration.scale.astype(np.float32), migration.shift.astype(np.float32))
        inputs |= {reader.name: TensorStatistics.between(-migration.reach, migration.reach) for reader in site.readers}
    # Last: the search for scales above counts errors by how large outputs are.
    balance_scores(onnx_model.graph, {name: observer.statistics() for name, observer in tokens.items()})
    fold_scales(onnx_model.graph)
    several = {name: observer.channels for name, observer in observers.items() if observer.channels.rows > seen.images}
    if split:
        inputs |= _split_inputs(onnx_model.graph, several, split)
    save(onnx_model, path)
    return CalibrationTable(inputs=inputs, images=seen.images, model_sha256=sha256_of(path), images_sha256=seen.sha256)


def _split_inputs(graph: ir.Graph, observers: Mapping[str, ChannelObserver], count: int) -> dict[str, TensorStatistics]:
    """Split the inputs of layers where that is worth it, and return the ranges of the parts.

    ``observers`` are of layers that see several tokens of each image: a split stands in the way of leaving tokens out.
    """
    ranges = {}
    layers = find_linears(graph)
    by_output = {layer.output: layer for layer in layers}
    for layer in layers:
        source = source_of(layer, by_output)
        if source is None or layer.name not in observers or len(layer.weight) < _SPLIT_FROM * count:
            continue
        channels = observers[layer.name].statistics()
        order = np.argsort(np.maximum(channels.maximum, -channels.minimum), kind="stable")
        for name, part in ((layer.name, order[:-count]), (wide_name(layer), order[-count:])):
            low, high = float(channels.minimum[part].min()), float(channels.maximum[part].max())
            ranges[name] = TensorStatistics.between(low, high)
        split_input(graph, layer, source, np.sort(order[-count:]))
    return ranges


def centre(model: Path, table: CalibrationTable, path: Path, observer: Observer) -> CalibrationTable:
    """Write ``model`` to ``path`` with an Add in front of each Linear layer whose input is one-sided.

    Returns the ranges that its layers' inputs have then.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    onnx_model = load_graph(model)
    inputs = dict(table.inputs)
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
    onnx_model = load_graph(model)
    layers = {layer.name: layer for layer in find_linears(onnx_model.graph)}
    moments = {
        linear.name: Moments(linear.quantization, len(layers[linear.name].weight))
        for linear in plan.linears
        if linear.quantization
    }
    engine = ObservedModel(model, operands_of)
    operands = {name: RangeObserver() for name in engine.others}
    observe(engine, {**moments, **operands}, images.track("Rounding weights"))
    linears = tuple(_round(onnx_model.graph, linear, layers[linear.name], moments) for linear in plan.linears)
    save(onnx_model, path)
    attentions = plan_attentions({name: range_.statistics() for name, range_ in operands.items()})
    return msgspec.structs.replace(plan, model_sha256=sha256_of(path), linears=linears, attentions=attentions)


def _round(graph: ir.Graph, linear: LinearPlan, layer: LinearLayer, moments: dict[str, Moments]) -> LinearPlan:
    if linear.quantization is None:
        return linear
    rounded = round_linear(layer.weight, moments.pop(linear.name))  # its memory is free again
    set_linear(graph, layer, rounded.weight, layer.bias)
    return msgspec.structs.replace(
        linear,
        quantization=msgspec.structs.replace(
            linear.quantization,
            weight_scales=tuple(rounded.scales.tolist()),
            bias_correction=tuple(rounded.correction.tolist()),
        ),
    )


def save(model: ir.Model, path: Path) -> None:
    """Write an ONNX file without what its graph does not use.

    Raises:
        StorageError: if it cannot be written.

    """
    model.graph.sort()
    common.RemoveUnusedNodesPass()(model)
    with atomic_path(path) as draft:
        ir.save(model, draft)
