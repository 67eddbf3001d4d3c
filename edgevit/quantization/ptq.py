"""Post-training quantization of a model in memory: rewrite it, decide its scales, round its weights.

Two passes over the images, each in memory that does not depend on their number:

1. what each channel of each Linear layer's input does (``calibration``), for the exact rewrites and for the ranges,
   from which the plan's scales follow (``plan``);
2. second moments of the quantized inputs, with which weights are rounded and biases corrected (``rounding``).

What comes out is a ``PtqModel``: a float32 model whose quantized weights lie on the grid of their scales already, and
the plan that belongs to it. Emitters need nothing else.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.bundle.reading import VerifiedFile
from edgevit.futures import as_done
from edgevit.graph.editing import set_linear
from edgevit.graph.linears import LinearLayer, find_linears, load_graph
from edgevit.graph.node_facts import Role, role_of
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.saving import save
from edgevit.progress import SILENT, Progress
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.blas import one_blas_thread
from edgevit.quantization.calibration.calibration_table import CalibrationTable, TensorStatistics
from edgevit.quantization.calibration.image_pass import observe_all, single_images
from edgevit.quantization.calibration.observed_model import ObservedModel
from edgevit.quantization.calibration.observers import RangeObserver
from edgevit.quantization.calibration.resume import NOTHING_KEPT, Keeper
from edgevit.quantization.exact_rewrites import ExactRewrites
from edgevit.quantization.plan import LinearPlan, QuantizationPlan, check_sha256
from edgevit.quantization.planning.attention_plan import operands_of, plan_attentions
from edgevit.quantization.planning.convolution_plan import plan_convolutions
from edgevit.quantization.planning.linear_plan import make_plan
from edgevit.quantization.rewrites.passes import FITTING, REFINING, SMOOTHING, Options, apply_passes
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.quantization.rounding.gptq import HessianObserver, QuantizedWeight, quantize_weight
from edgevit.recipes import NO_REWRITES, Observer, Rewrites

_AT_ONCE = 2  # layers whose weights are rounded; each takes eight times the memory of its moments meanwhile


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
    """An optimized float32 model in memory, and the plan that was made for it.

    ``unrounded`` are the weights (K, N) that were rounded, as they were before, by layer; none where nobody needs them.
    """

    model: ir.Model
    plan: QuantizationPlan
    unrounded: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def save(self, model: Path, plan: Path) -> PtqModel:
        """Write both to files; return them with the hash of the model's file in the plan.

        Raises:
            StorageError: if one cannot be written.

        """
        saved = save(self.model, model)
        written = replace(self, plan=msgspec.structs.replace(self.plan, model_sha256=saved.sha256))
        written.plan.save(plan)
        return written

    @classmethod
    def load(cls, model: VerifiedFile, plan: Path) -> PtqModel:
        """Read what ``save`` wrote.

        Raises:
            BundleError: if the plan is damaged, or belongs to another model.
            GraphError: if the model is damaged.

        """
        loaded = QuantizationPlan.load(plan)
        check_sha256("this quantization plan", loaded.model_sha256, model.sha256)
        read = load_graph(model.path)
        InferShapes()(read)
        return cls(read, loaded)


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A float32 model in memory, read from the file with ``sha256``; ``rotated`` if its residual stream could be.

    Tokens are merged by ``token_schedule``, none where it is empty.
    """

    model: ir.Model
    sha256: str
    rotated: bool
    token_schedule: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path, sha256: str, *, rotate: bool = True, token_schedule: Sequence[int] = ()) -> FloatModel:
        """Read the float32 ONNX file ``path`` with that SHA-256, and ``rotate`` its residual stream.

        Tokens are merged by ``token_schedule``, if there is one, one number for each block.

        Raises:
            GraphError: if it is no float32 ONNX model, or its tokens cannot be merged.

        """
        model = load_graph(path)
        InferShapes()(model)  # files of others seldom say the shapes of values
        rotated = rotate and rotate_stream(model.graph)  # what merges tokens would be in its way
        if any(token_schedule):
            MergeTokens(token_schedule)(model)
        return cls(model, sha256, rotated, tuple(token_schedule))


def optimize(
    model: ir.Model,
    table: CalibrationTable,
    images: CalibrationImages,
    scheme: Scheme,
    *,
    check: ExactRewrites | None = None,
    observer: Observer = "minmax",
    rewrites: Rewrites = NO_REWRITES,
) -> PtqModel:
    """Rewrite the float32 ``model`` for INT8, plan its scales and round its weights.

    ``table`` is what calibration saw of ``model`` on ``images``. ``observer`` reads the range off the inputs that
    cannot be shifted and scaled. ``model`` is used up: its weights go into what is returned.

    Raises:
        GraphError: if it has no Linear layers, or an activation is not finite.
        DataError: if there are no images, or they do not fit.
        VerificationError: if the rewritten model gives other logits.

    """
    options = Options(scheme, table.images, observer, rewrites)
    rewritten, plan = rewrite_and_plan(model, table, options, check)
    return quantize_weights(rewritten, plan, images, kept_as=scheme, key=msgspec.json.encode(rewrites))


def unrounded_weights(model: ir.Model, table: CalibrationTable, options: Options) -> dict[str, NDArray[np.float32]]:
    """Return the weights (K, N) that ``optimize`` rounds, by layer, as they are before that.

    ``model`` is the same float32 model, and is used up; ``table`` and ``options`` are as they were there.
    """
    rewritten, _ = rewrite_and_plan(model, table, options)
    return {layer.name: layer.weight for layer in find_linears(rewritten.graph)}


def rewrite_and_plan(
    model: ir.Model, table: CalibrationTable, options: Options, check: ExactRewrites | None = None
) -> tuple[ir.Model, QuantizationPlan]:
    """Apply the exact rewrites to ``model`` and plan its scales from ``table``; both as ``optimize`` has them.

    Raises:
        BundleError: if the table lacks a layer.
        GraphError: if the model has no Linear layers.
        VerificationError: if ``check`` finds other logits.

    """
    table.check_layers({layer.name: len(layer.weight) for layer in find_linears(model.graph)})
    ranges = apply_passes(model, table, options, SMOOTHING)
    if check is not None and options.scheme == "symmetric":  # what is shifted differs by more: float32 has 7 digits
        check.check(model)
    ranges = apply_passes(model, ranges, options, FITTING)
    if check is not None and options.scheme == "asymmetric":
        check.check(model)
    ranges = apply_passes(model, ranges, options, REFINING)
    plan = make_plan(model, ranges, scheme=options.scheme, observer=options.observer)
    if options.scheme == "symmetric":  # no dialect has a form for them
        return model, plan
    assert options.rewrites.alpha != "auto"  # noqa: S101 - the search over ranges has found one
    convolutions = plan_convolutions(model, table, options.observer, options.rewrites.alpha)
    return model, msgspec.structs.replace(plan, convolutions=convolutions)


def quantize_weights(
    model: ir.Model,
    plan: QuantizationPlan,
    images: CalibrationImages,
    *,
    kept_as: str,
    key: bytes = b"",
) -> PtqModel:
    """Round the weights of the layers of ``model`` that ``plan`` quantizes, in place.

    What is seen of the images for it is ``kept_as`` that name, with the plan and ``key``.

    Raises:
        GraphError: if the model cannot be run.
        DataError: if there are no images.

    """
    hessians, operands = _observe_rounded(model, plan, images, kept_as, key)
    linears = {linear.name: linear for linear in plan.linears}
    layers = {layer.name: layer for layer in find_linears(model.graph)}
    residuals = {layer.of: layer for layer in layers.values() if role_of(layer.matmul) is Role.RESIDUAL}
    total = len(hessians)
    with closing(_rounded(layers, hessians)) as rounding:  # threads wait in it
        for layer, rounded in images.progress.track(rounding, total=total, label="Rounding weights, layer by layer"):
            name = layer.name
            set_linear(model.graph, layer, rounded.weight, layer.bias)
            residual = residuals.get(name)
            of_input = rounded.of_input if residual is None else None
            linears[name] = _with_weights(linears[name], rounded.scales, rounded.correction, of_input)
            if residual is not None:  # the same weights; what the whole layer's bias makes up for, this has back
                residual.matmul.replace_input_with(1, layer.matmul.inputs[1])
                linears[residual.name] = _with_weights(linears[residual.name], rounded.scales, -rounded.of_input)
    return PtqModel(
        model,
        msgspec.structs.replace(plan, linears=tuple(linears.values()), attentions=plan_attentions(operands)),
    )


def _rounded(
    layers: dict[str, LinearLayer], hessians: dict[str, HessianObserver]
) -> Generator[tuple[LinearLayer, QuantizedWeight]]:
    """Yield each of ``layers`` that has ``hessians`` with its rounded weight; both are used up, their memory is free.

    Products of matrices keep to one thread each: they are small, and two layers at a time take less.
    """
    with one_blas_thread(), ThreadPoolExecutor(_AT_ONCE) as pool:

        def start(name: str) -> tuple[LinearLayer, Future[QuantizedWeight]]:
            layer = layers.pop(name)
            return layer, pool.submit(quantize_weight, layer.weight, hessians.pop(name))

        largest_first = sorted(hessians, key=lambda name: -layers[name].weight.shape[0])
        for layer, rounded in as_done(map(start, largest_first), at_once=_AT_ONCE):
            yield layer, rounded.result()


def _observe_rounded(
    model: ir.Model, plan: QuantizationPlan, images: CalibrationImages, kept_as: str, key: bytes
) -> tuple[dict[str, HessianObserver], dict[str, TensorStatistics]]:
    """Return the second moments of each layer's input that ``plan`` quantizes, and the ranges of attention's operands.

    The engine, which holds all weights, is gone then: the moments are as large. Images that were seen before a kill are
    not looked at again: what was kept is of this plan, which names the float32 file, and of these rewrites.
    """
    if not plan.linears:  # of convolutions alone nothing more is to be seen
        return {}, {}
    engine = ObservedModel(model, operands_of)
    digest = hashlib.sha256(msgspec.json.encode(plan) + key).hexdigest()
    hessians, operands = _unseen(engine, plan)
    if images.keeper.restore(kept_as, digest, {**hessians, **operands}):
        images.progress.note("Reusing the GPTQ statistics of a run that was stopped")
    else:
        hessians, operands = _unseen(engine, plan)
        started = time.monotonic()
        observe_all(engine, {**hessians, **operands}, single_images(images.track("Collecting statistics for GPTQ")))
        del engine
        images.keeper.keep(kept_as, digest, {**hessians, **operands}, time.monotonic() - started)
    return hessians, {name: range_.statistics() for name, range_ in operands.items()}


def _unseen(
    engine: ObservedModel, plan: QuantizationPlan
) -> tuple[dict[str, HessianObserver], dict[str, RangeObserver]]:
    widths = dict(zip(engine.layers, engine.widths, strict=True))
    hessians = {
        linear.name: HessianObserver(linear.quantization, widths[linear.name], engine.token)
        for linear in plan.linears
        if linear.quantization and linear.layer is None
    }
    return hessians, {name: RangeObserver() for name in engine.others}


def _with_weights(
    linear: LinearPlan,
    scales: NDArray[np.float32],
    correction: NDArray[np.float64],
    of_input: NDArray[np.float64] | None = None,
) -> LinearPlan:
    assert linear.quantization is not None  # noqa: S101 - the caller looks
    quantization = msgspec.structs.replace(
        linear.quantization,
        weight_scales=tuple(scales.tolist()),
        bias_correction=tuple(correction.tolist()),
        input_correction=() if of_input is None else tuple(of_input.tolist()),
    )
    return msgspec.structs.replace(linear, quantization=quantization)
