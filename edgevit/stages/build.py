"""``edgevit build``: one precision of a bundle's model, compiled for a target and shown to run on its kernels."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import backend_class, get_backend
from edgevit.bundle.manifest import (
    PLANNED,
    ConvolutionStage,
    Fallback,
    Kernels,
    LimitVerdict,
    Precision,
    TokenMerging,
    TokenPadding,
    Variant,
)
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.errors import GraphError, InputError
from edgevit.files import copy_tree, scratch_folder, shareable
from edgevit.graph.saving import SavedModel
from edgevit.models.outputs import in_words
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.float_fallback import float_in, float_reasons, note_float_in
from edgevit.quantization.kernel_check import KernelError
from edgevit.quantization.ptq import PtqModel
from edgevit.stages.convolution_race import check_integers, choose_convolutions
from edgevit.stages.engines import check_engine, lower_for
from edgevit.stages.precisions import (
    Decided,
    EngineSource,
    asked,
    check,
    choosing_settings,
    golden_figures_of,
    load_decided,
    merged_place,
    write_source,
)
from edgevit.stages.results import BuildResult
from edgevit.stages.token_padding import padded_if_faster
from edgevit.system import peak_rss_mb
from edgevit.targets import Target, float8_dialect, other_machine_reason
from edgevit.versions import narrowed


@dataclass(frozen=True, slots=True)
class Compiled:
    """A variant that is ready and checked, but not in the bundle yet; ``model`` in ``folder`` is the file to open.

    ``settings`` are what it is opened with, ``source`` is the ONNX file that it was built from, ``outputs`` are what it
    gives for the images of an evaluator, if there was one and it runs here. ``kernels`` is None where the engine does
    not tell; ``fallback``, ``limit``, ``convolution_stages``, ``token_merging`` and ``token_padding`` are as in
    ``Variant``. ``float_in`` are the layers that are float with this engine alone, with the reasons. ``problem`` is
    what is wrong with its answers to the golden images; None if nothing is, or it does not run here.
    """

    name: str
    precision: Precision
    target_name: str
    target: Target
    folder: Path
    model: Path
    settings: Mapping[str, str]
    kernels: Kernels | None
    source: SavedModel
    outputs: NDArray[np.float32] | None = None
    problem: str | None = None
    fallback: tuple[Fallback, ...] = ()
    limit: LimitVerdict | None = None
    convolution_stages: tuple[ConvolutionStage, ...] = ()
    token_merging: TokenMerging | None = None
    token_padding: TokenPadding | None = None
    float_in: Mapping[str, str] = field(default_factory=dict)


def variant_name(target: Target, precision: Precision, token_budget: float | None = None) -> str:
    """Return what the variant of ``precision`` for ``target`` is called, and by which budget tokens are merged.

    Where float32 has no form of its own, it is the exported file itself, which is called float32 alone.
    """
    if precision == "float32" and precision not in target.precisions:
        return "float32"
    name = target.variant_of(precision)
    return merged_place(name, token_budget)


def budget_of(decided: Decided) -> float | None:
    """Return the budget by which tokens are merged in the model that was ``decided`` on, if they are."""
    merging = decided.plan.token_merging if isinstance(decided, PtqModel) else None
    return None if merging is None else merging.budget


def build(
    bundle: Bundle,
    target_name: str,
    target: Target,
    precision: Precision,
    *,
    token_budget: float | None = None,
    progress: Progress = SILENT,
) -> BuildResult:
    """Add the variant of ``precision`` for ``target``; its Linear layers must run in the arithmetic that was planned.

    ``token_budget`` is one that ``quantize`` has merged tokens by.

    Raises:
        InputError: if the target does not take that precision.
        BundleError: if the bundle lacks the plan that INT8 or FP16 needs.
        VerificationError: if most quantized layers run in float, or a DoesNotPayError if all would, see
            ``compile_variant``; the bundle is as it was.
        MissingDependencyError: if the backend, a version of it that serves the target, or the device is not here.
    """
    started = time.monotonic()
    check_takes(target_name, target, precision)
    check_merges(precision, token_budget)
    decided, float32 = load_decided(bundle, precision, target, token_budget), bundle.verify_float32()
    with scratch_folder() as scratch:
        if isinstance(decided, PtqModel):
            limit = decided.plan.limit
            if limit is not None and decided.plan.limit_in(target.dialect) is None:
                judged = f"dialect{'s' * (len(limit.dialects) > 1)} {' and '.join(limit.dialects)}"
                progress.note(f"The limit was judged in the {judged}: edgevit validate shows what {target_name} costs")
            decided = choose_convolutions(bundle, float32, target, precision, decided, scratch, progress=progress)
        made = compile_variant(bundle, float32, target_name, target, precision, decided, scratch, progress=progress)
        bundle = add(bundle, made, progress)
    return BuildResult(
        bundle=bundle,
        names=(made.name,),
        seconds=time.monotonic() - started,
        peak_rss_mb=peak_rss_mb(),
        refused=refused_of([made]),
    )


def check_takes(target_name: str, target: Target, precision: Precision) -> None:
    """Check that ``precision`` can be made for ``target``.

    Raises:
        InputError: if it cannot.
    """
    if precision not in target.precisions:
        raise InputError(
            f"target {target_name} does not take {precision}",
            remedy=f"use --precision {' or '.join(target.precisions)}"
            + (f", or a target of dialect {float8_dialect()}" if precision == "fp8" else ""),
        )


def check_merges(precision: Precision, token_budget: float | None) -> None:
    """Check that tokens can be merged in a variant of ``precision``, if they are to be.

    Raises:
        InputError: if not.
    """
    if token_budget is not None and precision not in PLANNED:
        raise InputError(
            f"tokens are merged in {' and '.join(PLANNED)}, not in {precision}",
            remedy="leave --token-budget out, or use --precision int8",
        )


def check_gives(bundle: Bundle, target_name: str, target: Target) -> None:
    """Check that the engine of ``target`` gives what the model does.

    Raises:
        GraphError: if the model has outputs that it does not give.
    """
    outputs = bundle.manifest.typed_outputs
    if outputs and not backend_class(target.backend).several_outputs:
        raise GraphError(
            f"{target_name}: {target.backend} is built here for one row of numbers for each image, "
            f"and the model gives {in_words(outputs)}",
            remedy="use a target of onnxruntime or OpenVINO, or the portable ONNX file: --dialect portable",
        )


def compile_variant(
    bundle: Bundle,
    float32: VerifiedFile,
    target_name: str,
    target: Target,
    precision: Precision,
    decided: Decided,
    scratch: Path,
    *,
    source: EngineSource | None = None,
    evaluator: Evaluator | None = None,
    progress: Progress = SILENT,
) -> Compiled:
    """Compile the model for ``target`` in ``precision`` below ``scratch``, by what was ``decided`` on images for it.

    ``source`` is the file to compile where it has been written before, ``evaluator`` has images to run it on.

    Layers that the engine has no integer kernel for stay float, and are compiled again so; ``float_in`` of what is
    returned names them.

    Raises:
        KernelError: if that would be most layers.
        DoesNotPayError: if all layers stay float with the engine.
        GraphError: if it does not give the model's outputs, or has no integers for any of its layers.
        VerificationError: if the variant is not what the precision promises otherwise.
        MissingDependencyError: if the backend, a version of it that serves the target, or the device is not here.
    """
    check_gives(bundle, target_name, target)
    name = variant_name(target, precision, budget_of(decided))
    float_layers: dict[str, str] = {}

    def compiled(decided: Decided, place: Path, progress: Progress) -> Compiled:
        # Where layers return to float a variant is compiled again, and what was made before is of no use.
        shutil.rmtree(place / name, ignore_errors=True)
        (place / name).mkdir(parents=True)
        return _compile_once(
            bundle, float32, target_name, target, precision, decided, place, source, evaluator, progress
        )

    while True:
        if isinstance(decided, PtqModel):
            check_integers(decided.plan, target, variant_name(target, "float32"))
        try:
            made = compiled(decided, scratch, progress)
        except KernelError as error:
            reasons = _float_reasons(decided, error)
            for layer, reason in reasons.items():
                progress.note(f"{name} keeps {layer} in float: {reason}")
            assert isinstance(decided, PtqModel)  # noqa: S101 - else there are no reasons
            plan = note_float_in(decided.plan, target.dialect, reasons)
            decided = replace(decided, plan=plan)
            float_layers |= reasons
        else:
            break
    if precision == "int8" and isinstance(decided, PtqModel) and made.kernels is not None:
        made, padding = padded_if_faster(bundle, decided, made, partial(compiled, place=scratch / "padded"), progress)
        made = replace(made, token_padding=padding)
    return replace(made, float_in=float_layers)


def _float_reasons(decided: Decided, error: KernelError) -> dict[str, str]:
    """Return why the layers that ``error`` names are float, or raise it where too few would be left."""
    if not isinstance(decided, PtqModel):
        raise error
    linears = decided.plan.integer_linears()
    if sum(name in linears for name in error.layers) > len(linears) // 2:
        raise error
    return float_reasons(error.layers, error.engine)


def _compile_once(
    bundle: Bundle,
    float32: VerifiedFile,
    target_name: str,
    target: Target,
    precision: Precision,
    decided: Decided,
    scratch: Path,
    source: EngineSource | None,
    evaluator: Evaluator | None,
    progress: Progress,
) -> Compiled:
    name = variant_name(target, precision, budget_of(decided))
    folder = scratch / name
    if isinstance(decided, PtqModel):
        decided = float_in(decided, target.dialect)
    options = target.build_options(precision)
    elsewhere = backend_class(target.backend).unbuildable_reason(options)
    if elsewhere is None:
        backend = get_backend(target.backend)
        check_engine(backend, target_name, target, precision)
        progress.note(f"Building {name} for {target_name} with {target.backend} {backend.version()}")
        source = source or write_source(float32, precision, target, decided, scratch / f"{name}.onnx")
        source = replace(source, file=lower_for(source.file, target, backend.version()))
        model = backend.build(source.model, folder, options, progress=progress)[0]
    else:
        reason = other_machine_reason(target, platform.machine()) or elsewhere
        progress.note(f"Writing {name} for {target_name} as ONNX, to be built on the device: {reason}")
        source = write_source(float32, precision, target, decided, folder / "model.onnx")
        model = source.model
    for line in _float_attentions(source):
        progress.note(line)
    with choosing_settings(bundle, precision, target, decided, model) as (settings, raced):
        if chosen := _chosen(settings, target.choices_for(precision)):
            how = "was fastest here" if raced is not None else "is the target's first choice, not raced here"
            progress.note(f"{name}: {chosen} {how}")
        with asked(target, model, settings, raced) as session:
            kernels = check(bundle, source, precision, target, model, settings, session)
            outputs = None if session is None or evaluator is None else evaluator.outputs_of(session)
            problem = None if session is None else golden_figures_of(bundle, precision, session).problem
    made = (name, precision, target_name, target, folder, model, settings, kernels, source.file)
    compiled = Compiled(*made, outputs=outputs, problem=problem)
    if isinstance(decided, PtqModel):
        return replace(
            compiled,
            fallback=decided.plan.float_layers(),
            limit=decided.plan.limit_in(target.dialect),
            convolution_stages=decided.plan.stages_in(target.dialect),
            token_merging=decided.plan.token_merging,
        )
    return compiled


def _chosen(settings: Mapping[str, str], choices: Sequence[Mapping[str, str]]) -> str:
    """Return those of ``settings`` that a target leaves open, as KEY=VALUE; nothing where it has one choice."""
    return ", ".join(f"{key}={value}" for key, value in settings.items() if len({each[key] for each in choices}) > 1)


def _float_attentions(source: EngineSource) -> Iterator[str]:
    """Yield a line for each reason why attention stays in float."""
    names: dict[str, list[str]] = {}
    for name, reason in source.float_attentions.items():
        names.setdefault(reason, []).append(name)
    for reason, (first, *rest) in names.items():
        more = f" and {len(rest)} more" if rest else ""
        yield f"Attention of {first}{more} stays in float16: {reason}"


def refused_of(made: Iterable[Compiled]) -> dict[str, str]:
    """Return which of the variants that were ``made`` are refused when they are loaded, and why."""
    return {each.name: each.problem for each in made if each.problem is not None}


def add(bundle: Bundle, compiled: Compiled, progress: Progress = SILENT) -> Bundle:
    """Add a compiled variant to the bundle, and say what it replaces if there is one of that name.

    Raises:
        StorageError: if the disk is full or not writable; the bundle is as it was.
    """

    def fill(folder: Path) -> Sequence[Path]:
        copy_tree(compiled.folder, folder)
        return [folder / compiled.model.relative_to(compiled.folder)]

    replaced = next((variant for variant in bundle.manifest.variants if variant.name == compiled.name), None)
    changed = bundle.add_variant(
        compiled.name,
        precision=compiled.precision,
        backend=compiled.target.backend,
        target=shareable(compiled.target_name),
        settings=compiled.settings,
        kernels=compiled.kernels,
        versions=_versions(compiled),
        fallback=compiled.fallback,
        limit=compiled.limit,
        convolution_stages=compiled.convolution_stages,
        token_merging=compiled.token_merging,
        token_padding=compiled.token_padding,
        fill=fill,
    )
    if replaced is not None:
        progress.note(_replaced(replaced, changed.variant(compiled.name)))
    return changed


def _replaced(old: Variant, new: Variant) -> str:
    """Say that ``new`` is in the place of ``old``, and what is lost with that."""
    said = f"{new.name} replaces the one of that name"
    if old.target != new.target:
        said = f"{new.name} for {new.target} replaces the one for {old.target}"
    lost = []
    if _trained(old) and not _trained(new):
        lost.append("the weights that were trained for its budget")
    if old.accuracy is not None or old.latency is not None:
        lost.append("the figures measured on it")
    return f"{said}, and {' and '.join(lost)}" if lost else said


def _trained(variant: Variant) -> bool:
    """Say whether the variant has weights of a student, in place of the bundle's own."""
    return variant.token_merging is not None and variant.token_merging.student_sha256 is not None


def _versions(compiled: Compiled) -> str | None:
    """Return the versions of the engine that run the file: those that the target is for, less those too old for it."""
    source = compiled.source
    first = backend_class(compiled.target.backend).first_version(source.opset, source.operators)
    return compiled.target.versions if first is None else narrowed(compiled.target.versions, first)
