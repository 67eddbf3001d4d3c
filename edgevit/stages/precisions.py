"""What each precision is made of, and how it is shown to be what it is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgevit.backends import BACKENDS, backend_class, get_backend
from edgevit.backends.base import LinearKernel, Session
from edgevit.bundle.manifest import PLANNED, Kernels, Precision
from edgevit.bundle.reading import VerifiedFile, logical_path
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, GraphError
from edgevit.graph.linears import open_graph
from edgevit.graph.multiply_adds import Counted, count_multiply_adds
from edgevit.graph.saving import SavedModel
from edgevit.graph.weights import letting_go
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.emit import dialect_called, emit, emit_float8, emit_float32, scheme_of
from edgevit.quantization.float16.convert import Float16Plan, emit_float16
from edgevit.quantization.kernel_check import (
    check_convolutions,
    check_kernels,
    check_linears,
    name_the_last,
    with_arithmetic,
)
from edgevit.quantization.lint.tensorrt_rules import check_tensorrt
from edgevit.quantization.ptq import PtqModel
from edgevit.quantization.weight_only.dynamic import check_dynamic, emit_dynamic
from edgevit.quantization.weight_only.packed import check_packed, emit_weights_int4, emit_weights_int8
from edgevit.runtime.verification import GoldenFigures, differs, golden_figures
from edgevit.shell import quoted
from edgevit.stages.deviation import Allowance, deviation_between
from edgevit.stages.settings_race import fastest_settings
from edgevit.targets import Target, float8_dialect

#: Where a bundle keeps what was decided on images.
PLANS: dict[Scheme, str] = {"asymmetric": "calibration/plan.json", "symmetric": "calibration/plan-symmetric.json"}
OPTIMIZED: dict[Scheme, str] = {"asymmetric": "calibration/model.onnx", "symmetric": "calibration/model-symmetric.onnx"}
FLOAT16_PLAN = "float16/plan.json"

#: Those for which images are looked at first.
NEED_IMAGES: tuple[Precision, ...] = ("int8", "fp8", "fp16")

#: What was decided on images: for INT8 and FP8, for FP16, or nothing, where nothing is to be decided.
Decided = PtqModel | Float16Plan | None


@dataclass(frozen=True, slots=True)
class EngineSource:
    """An ONNX file for a backend to build from, and what its Linear layers must show afterwards.

    ``integer_layers`` and ``integer_convolutions`` must run in integers, ``float8_layers`` in FP8, and
    ``packed_layers`` is how many must keep their weights in integers; None where the engine is not asked.
    ``float_layers`` stay float beside them. ``float_attentions`` stay in float though the target asks for more, with
    the reasons. ``counted`` are the model's multiply-adds, as they were before it took the form for the engine.
    """

    file: SavedModel
    integer_layers: tuple[str, ...] = ()
    integer_convolutions: tuple[str, ...] = ()
    float8_layers: tuple[str, ...] = ()
    packed_layers: int | None = None
    float_layers: tuple[str, ...] = ()
    float_attentions: Mapping[str, str] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)

    @property
    def model(self) -> Path:
        """Where the file is."""
        return self.file.path


def write_source(
    float32: VerifiedFile, precision: Precision, target: Target, decided: Decided, path: Path
) -> EngineSource:
    """Write the float32 ONNX file in ``precision`` to ``path``, in the form for ``target``.

    Raises:
        BundleError: if what was ``decided`` was for another model.
        GraphError: if the model has no Linear layers.
        StorageError: if the file cannot be written.

    """
    if isinstance(decided, PtqModel):
        decided.plan.check_source(float32.sha256)
        counted = count_multiply_adds(decided.model)
        return replace(_quantized(precision, target, decided, path), counted=counted)
    with open_graph(float32.path) as model:
        counted = count_multiply_adds(model)  # the emitters use it up
        if isinstance(decided, Float16Plan):
            return EngineSource(emit_float16(model, float32.sha256, decided, path).file, counted=counted)
        if precision == "int8-dynamic" and backend_class(target.backend).dynamic_operators:
            dynamic = emit_dynamic(model, path)
            return EngineSource(dynamic.file, integer_layers=dynamic.layers, counted=counted)
        if precision in ("int8-dynamic", "int8-weights"):
            packed = emit_weights_int8(model, path)
            return EngineSource(packed.file, packed_layers=len(packed.layers), counted=counted)
        if precision == "int4-weights":
            packed = emit_weights_int4(model, path)
            return EngineSource(packed.file, packed_layers=len(packed.layers), counted=counted)
        return EngineSource(emit_float32(model, target.dialect, path).file, counted=counted)


def write_float32(float32: VerifiedFile, places: Mapping[str, Path]) -> dict[str, EngineSource]:
    """Write the float32 ONNX file in the form for each dialect in ``places``, reading it once for all of them.

    A dialect that it has no form in is left out: ``write_source`` says why not.

    Raises:
        GraphError: if the file is no valid model.
        StorageError: if a file cannot be written.

    """
    written: dict[str, EngineSource] = {}
    with open_graph(float32.path) as model:
        counted = count_multiply_adds(model)
        for dialect, path in places.items():
            with suppress(GraphError), letting_go(model.clone()) as own:
                written[dialect] = EngineSource(emit_float32(own, dialect, path).file, counted=counted)
    return written


def _quantized(precision: Precision, target: Target, decided: PtqModel, path: Path) -> EngineSource:
    """Write the optimized model to ``path`` in INT8 or FP8."""
    plan, layers = decided.plan, decided.plan.integer_linears()
    convolutions = {each.name for each in plan.convolutions}
    kept_float = tuple(each.layer for each in plan.float_layers() if each.layer not in convolutions)
    if precision == "fp8":
        emitted = emit_float8(decided, target.dialect, path, attention=target.attention)
        return EngineSource(
            emitted.file, float8_layers=layers, float_layers=kept_float, float_attentions=emitted.float_attentions
        )
    bits = target.weight_bits_on()
    emitted = emit(decided, target.dialect, path, weight_bits=bits, attention=target.attention)
    return EngineSource(
        emitted.file,
        integer_layers=layers,
        integer_convolutions=plan.integer_convolutions() if dialect_called(target.dialect).convolutions else (),
        float_layers=kept_float,
        float_attentions=emitted.float_attentions,
    )


@contextmanager
def choosing_settings(
    bundle: Bundle, precision: Precision, target: Target, decided: Decided, model: Path
) -> Iterator[tuple[Mapping[str, str], Session | None]]:
    """Yield what the backend is to open the file ``model`` with; what the target leaves open is raced for.

    Where there is a race, the session that won is open still; else there is none. There is no race, and it gets what
    the target prefers, where the engine is not here, or where ``decided`` holds the verdict on a limit: that was
    verified with it. A network with convolutions must stay near float32 with what wins.
    """
    choices = target.choices_for(precision)
    limited = isinstance(decided, PtqModel) and decided.plan.limit_in(target.dialect) is not None
    if len(choices) == 1 or limited or _is_elsewhere(target, model, choices[0]):
        yield choices[0], None
        return
    manifest, golden = bundle.manifest, bundle.golden()
    images = np.stack([manifest.preprocess(image) for image in golden.images])

    def accept(first: Session, other: Session) -> bool:
        if not (isinstance(decided, PtqModel) and decided.plan.convolutions):
            return True
        answers = (np.concatenate([each.infer(image[None]) for image in images]) for each in (first, other))
        without, found = (deviation_between(manifest, golden.logits, one) for one in answers)
        return Allowance(without).holds(found)

    with fastest_settings(get_backend(target.backend), model, choices, images[:1], accept) as found:
        yield found


@contextmanager
def asked(target: Target, model: Path, settings: Mapping[str, str], raced: Session | None) -> Iterator[Session | None]:
    """Yield a session of the file ``model`` to ask what runs how: ``raced``, if it has been opened with ``settings``.

    None where it is to run elsewhere, or on a device that does not tell.
    """
    backend = backend_class(target.backend)
    if _is_elsewhere(target, model, settings) or target.device in backend.silent_devices:
        yield None
    elif raced is not None:
        yield raced
    else:
        with get_backend(target.backend).open(model, threads=0, settings=settings) as session:
            yield session


def check(
    bundle: Bundle,
    source: EngineSource,
    precision: Precision,
    target: Target,
    model: Path,
    settings: Mapping[str, str],
    session: Session | None,
) -> Kernels | None:
    """Show that the backend runs the file ``model``, which it built from ``source``, as ``precision`` promises.

    ``settings`` are those that ``session``, which is as ``asked`` gives it, was opened with.

    Return in which arithmetic; None where the engine does not tell, or is built elsewhere: what TensorRT would take is
    known from its rules alone then. An engine that was built for another machine is judged by the build's own report.

    Raises:
        KernelError: if a layer runs in other arithmetic.
        VerificationError: if it does not otherwise.

    """
    if precision in PLANNED and dialect_called(target.dialect).lint is not None:
        check_tensorrt(source.model, target.dialect)
    if _is_elsewhere(target, model, settings):
        built = backend_class(target.backend).built_report(model)
        if built is None:
            return None
        linears = list(built.linears)
        kernels = check_linears(linears, source.integer_layers, source.float8_layers, engine=target.backend)
        return with_arithmetic(kernels, source.counted, _integers(linears) | built.integer_nodes())
    _check_others(source, target)
    if session is None:
        _check_answers(bundle, precision, target, model)
        return None
    found = session.linear_kernels()
    if source.packed_layers is None:
        found = name_the_last(found, (*source.integer_layers, *source.float8_layers, *source.float_layers))
        kernels = check_linears(found, source.integer_layers, source.float8_layers, engine=target.backend)
    else:
        kernels = check_packed(session, source.packed_layers)
    products = session.integer_products()
    check_convolutions(products, source.integer_convolutions, engine=target.backend)
    kernels = with_arithmetic(kernels, source.counted, _integers(found) | products)
    if source.packed_layers is not None and precision == "int8-dynamic":
        images = np.stack([bundle.manifest.preprocess(image) for image in bundle.golden().images])
        check_dynamic(get_backend(target.backend), model, settings, images)
        return None
    return kernels


def _integers(linears: Iterable[LinearKernel]) -> frozenset[str]:
    return frozenset(linear.layer for linear in linears if linear.integer)


def _check_answers(bundle: Bundle, precision: Precision, target: Target, model: Path) -> None:
    """Show that the golden images get float32's answers, one at a time, where the engine tells of no kernels."""
    with get_backend(target.backend).open(model, threads=0, settings=target.settings_for(precision)) as session:
        found = golden_figures_of(bundle, precision, session)
    if found.problem is not None:
        raise differs(found.problem)


def golden_figures_of(bundle: Bundle, precision: Precision, session: Session) -> GoldenFigures:
    """Return how ``session`` answers to the golden images, which it is given one at a time."""
    manifest, golden = bundle.manifest, bundle.golden()
    return golden_figures(
        np.concatenate([session.infer(manifest.preprocess(image)[None]) for image in golden.images]),
        golden.logits,
        precision=precision,
        classes=manifest.classes,
        independent=manifest.independent,
        outputs=manifest.typed_outputs,
    )


def _is_elsewhere(target: Target, model: Path, settings: Mapping[str, str]) -> bool:
    return backend_class(target.backend).unsupported_reason(model, settings) is not None


def _check_others(source: EngineSource, target: Target) -> None:
    """Show that all other engines of the dialect that are installed run the same file in integers too."""
    for name in BACKENDS:
        other = backend_class(name)
        shared = name != target.backend and target.dialect in other.dialects and not other.builds_on_device
        if shared and other.available():
            with get_backend(name).open(source.model, threads=0, settings={}) as session:
                check_kernels(session, source.integer_layers, engine=name)


def calibrating(bundle: Bundle, precision: Precision, target: Target | None = None) -> str:
    """Return the command that looks at images for ``precision``, and the dialect of ``target`` if need be."""
    chosen = "" if precision == "int8" else f" --precision {precision}"
    if precision == "fp8":
        chosen += f" --dialect {float8_dialect()}"
    elif target is not None and precision == "int8" and scheme_of(target.dialect) == "symmetric":
        chosen += f" --dialect {target.dialect}"
    return f"edgevit quantize {quoted(bundle.path)}{chosen} --data IMAGES"


def load_decided(bundle: Bundle, precision: Precision, target: Target, token_budget: float | None = None) -> Decided:
    """Return what was decided on images for ``precision`` when the bundle was quantized; None if nothing is needed.

    With ``token_budget`` it is what was decided for a model whose tokens are merged.

    Raises:
        BundleError: if that has not been done yet, or is damaged.

    """
    if precision not in NEED_IMAGES:
        return None
    scheme = scheme_of(target.dialect)
    places = [OPTIMIZED[scheme], PLANS[scheme]] if precision in PLANNED else [FLOAT16_PLAN]
    places = [merged_place(each, token_budget) for each in places]
    if not {logical_path(file) for file in bundle.manifest.extra}.issuperset(places):
        raise BundleError(
            f"{bundle.path} has not been calibrated for {precision}",
            remedy=calibrating(bundle, precision, target)
            + ("" if token_budget is None else f" --token-budget {token_budget:g}"),
        )
    if precision == "fp16":
        return Float16Plan.load(bundle.verify_extra(FLOAT16_PLAN).path)
    model, plan = (bundle.verify_extra(place) for place in places)
    return PtqModel.load(model, plan.path)


def merged_place(place: str, token_budget: float | None) -> str:
    """Return where what ``place`` holds is kept for a model whose tokens are merged by that budget, if there is one."""
    if token_budget is None:
        return place
    folder, slash, name = place.partition("/")
    return f"{folder}-tokens{round(100 * token_budget)}{slash}{name}"
