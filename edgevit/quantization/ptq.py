"""From a float32 model and calibration images to a model that is ready to be rounded, and how to round it.

Two passes over the images, each in memory that does not depend on their number:

1. what each channel of each Linear layer's input does, for the exact rewrites (``rewrites/``, ``smoothing``) and for
   the ranges, from which the plan's scales follow (``plan``);
2. moments of the quantized inputs, with which weights are rounded and biases corrected (``rounding``).

What comes out is a float32 ONNX file, the *prepared* model, whose quantized weights lie on the grid of their scales
already, and the plan that belongs to it. Emitters need nothing else.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import layer_of
from edgevit.errors import VerificationError
from edgevit.files import scratch_folder, sha256_of
from edgevit.graph.constants import set_linear
from edgevit.graph.linears import find_linears, open_graph
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.attention import operands_of, plan_attentions
from edgevit.quantization.calibration.calibrate import ObservedModel, calibrate, observe, one_by_one
from edgevit.quantization.calibration.observers import RangeObserver
from edgevit.quantization.calibration.resume import NOTHING_KEPT, Keeper
from edgevit.quantization.calibration.statistics import CalibrationTable, TensorStatistics
from edgevit.quantization.plan import LinearPlan, QuantizationPlan, make_plan
from edgevit.quantization.rewrites.apply import add_residuals, centre, embed, save, smooth
from edgevit.quantization.rewrites.residual import residual_name
from edgevit.quantization.rounding.gptq import HessianObserver, quantize_weight
from edgevit.recipes import NO_REWRITES, Observer, Rewrites

_CHECKED = 4  # images that the rewritten model is compared on
_TOLERANCE = 1e-3  # of the largest logit; float32 in another order differs by about 1e-6 of it


@dataclass(frozen=True, slots=True)
class CalibrationImages:
    """Calibration images that can be read again and again: ``read`` yields (B, C, H, W), ``batches`` times.

    ``keeper`` keeps what the second pass over them saw.
    """

    read: Callable[[], Iterable[NDArray[np.float32]]]
    batches: int
    progress: Progress = SILENT
    keeper: Keeper = NOTHING_KEPT

    def track(self, label: str) -> Iterable[NDArray[np.float32]]:
        """Yield all batches and report on it as ``label``."""
        return self.progress.track(self.read(), total=self.batches, label=label)


@dataclass(frozen=True, slots=True)
class PtqModel:
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
) -> tuple[CalibrationTable, dict[Scheme, PtqModel]]:
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
    prepared: dict[Scheme, PtqModel] = {}
    with scratch_folder() as scratch:
        smoothed = scratch / "smoothed.onnx"
        ranges = smooth(model, table, smoothed, rewrites=rewrites)
        check_rewritten(model, smoothed, images)
        for scheme, path in places.items():
            base, plan = plan_scheme(smoothed, ranges, scheme, observer, rewrites, scratch)
            if scheme == "asymmetric":  # what is centred differs by more where a shift is large: float32 has 7 digits
                check_rewritten(model, base, images)
            plan = quantize_weights(base, plan, images, path, kept_as=scheme)
            if scheme in unrounded:
                shutil.copyfile(base, unrounded[scheme])
            prepared[scheme] = PtqModel(path, msgspec.structs.replace(plan, source_sha256=source))
    return table, prepared


def plan_scheme(
    smoothed: Path, ranges: CalibrationTable, scheme: Scheme, observer: Observer, rewrites: Rewrites, folder: Path
) -> tuple[Path, QuantizationPlan]:
    """Return the model to round, and its plan; ``smoothed`` and ``ranges`` are what ``smooth`` made.

    Signed activations are centred. Unsigned ones hold the pixels that the patch embedding reads, which becomes a Linear
    layer. What is written goes to ``folder``.
    """
    base = folder / f"{scheme}.onnx"
    if scheme == "symmetric":
        ranges = centre(smoothed, ranges, base, observer, rewrites)
    else:
        ranges = embed(smoothed, ranges, base, rewrites)
    plan = make_plan(base, ranges, scheme=scheme, observer=observer)
    if not rewrites.residual_layers and not rewrites.residual_token_layers:
        return base, plan
    refined = folder / f"refined-{scheme}.onnx"
    ranges = add_residuals(base, ranges, plan, rewrites, refined)
    return refined, make_plan(refined, ranges, scheme=scheme, observer=observer)


def check_rewritten(model: Path, rewritten: Path, images: CalibrationImages) -> None:
    """Check on the first calibration images that ``rewritten`` gives the logits of ``model``.

    Raises:
        VerificationError: if it does not.

    """
    evaluator = Evaluator(model, islice(one_by_one(images.read()), _CHECKED))
    expected, found = evaluator.reference, evaluator.outputs(rewritten)
    difference = float(np.abs(expected - found).max())
    if not difference <= _TOLERANCE * float(np.abs(expected).max()):
        raise VerificationError(
            f"rewriting the model before quantization changed its logits by {difference:g}",
            remedy="report it with the model's architecture: an exact rewrite took it for another",
        )


def quantize_weights(
    model: Path, plan: QuantizationPlan, images: CalibrationImages, path: Path, *, kept_as: str
) -> QuantizationPlan:
    """Write ``model`` to ``path`` with the weights of the layers that ``plan`` quantizes rounded; return its plan.

    What is seen of the images for it is ``kept_as`` that name.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the model cannot be run.
        DataError: if there are no images.
        StorageError: if the file cannot be written.

    """
    plan.check_model(model)
    moments, operands = _observe_rounded(model, plan, images, kept_as)
    linears = {linear.name: linear for linear in plan.linears}
    with open_graph(model) as onnx_model:
        layers = {layer.name: layer for layer in find_linears(onnx_model.graph)}
        for name in images.progress.track(list(moments), total=len(moments), label="Rounding weights, layer by layer"):
            layer = layers.pop(name)
            rounded = quantize_weight(layer.weight, moments.pop(name))  # its memory is free again
            set_linear(onnx_model.graph, layer, rounded.weight, layer.bias)
            linears[name] = _with_weights(linears[name], rounded.scales, rounded.correction)
            rest = layers.pop(residual_name(layer), None)
            if rest is not None:  # the same weights; what the whole layer's bias makes up for, this has back
                rest.product.replace_input_with(1, layer.product.inputs[1])
                linears[rest.name] = _with_weights(linears[rest.name], rounded.scales, -rounded.of_input)
        save(onnx_model, path)
    return msgspec.structs.replace(
        plan, model_sha256=sha256_of(path), linears=tuple(linears.values()), attentions=plan_attentions(operands)
    )


def _observe_rounded(
    model: Path, plan: QuantizationPlan, images: CalibrationImages, kept_as: str
) -> tuple[dict[str, HessianObserver], dict[str, TensorStatistics]]:
    """Return the moments of each layer's input that ``plan`` quantizes, and the ranges of what attention multiplies.

    The engine, which holds all weights, is gone then: the moments are as large. Images that were seen before a kill are
    not looked at again: what was kept is of this model, whose hash is in the plan, and of this plan.
    """
    engine = ObservedModel(model, operands_of)
    key = hashlib.sha256(msgspec.json.encode(plan)).hexdigest()
    moments, operands = _unseen(engine, plan)
    if images.keeper.restore(kept_as, key, {**moments, **operands}):
        images.progress.note("What is rounded was observed before an earlier run was stopped: not again")
    else:
        moments, operands = _unseen(engine, plan)
        started = time.monotonic()
        observe(engine, {**moments, **operands}, images.track("Observing what is rounded"))
        del engine
        images.keeper.keep(kept_as, key, {**moments, **operands}, time.monotonic() - started)
    return moments, {name: range_.statistics() for name, range_ in operands.items()}


def _unseen(
    engine: ObservedModel, plan: QuantizationPlan
) -> tuple[dict[str, HessianObserver], dict[str, RangeObserver]]:
    widths = dict(zip(engine.layers, engine.widths, strict=True))
    moments = {
        linear.name: HessianObserver(linear.quantization, widths[linear.name], engine.token)
        for linear in plan.linears
        if linear.quantization and layer_of(linear.name) == linear.name
    }
    return moments, {name: RangeObserver() for name in engine.others}


def _with_weights(linear: LinearPlan, scales: NDArray[np.float32], correction: NDArray[np.float64]) -> LinearPlan:
    assert linear.quantization is not None  # noqa: S101 - the caller looks
    quantization = msgspec.structs.replace(
        linear.quantization, weight_scales=tuple(scales.tolist()), bias_correction=tuple(correction.tolist())
    )
    return msgspec.structs.replace(linear, quantization=quantization)
