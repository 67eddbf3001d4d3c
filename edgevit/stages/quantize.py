"""``edgevit quantize``: calibrate once if the precision asks for it, then build its variant for each target."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from edgevit.bundle.manifest import Precision
from edgevit.bundle.reading import VerifiedFile, logical_path
from edgevit.bundle.store import Bundle
from edgevit.data.batches import batches
from edgevit.data.dataset import Dataset
from edgevit.errors import BundleError, EdgeViTError, GraphError, InputError, MissingDependencyError, VerificationError
from edgevit.files import scratch_folder
from edgevit.graph.linears import open_graph
from edgevit.graph.weights import let_go
from edgevit.models.outputs import Output
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.range_search import search_ranges
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration.image_pass import one_by_one
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.float16.convert import Float16Plan
from edgevit.quantization.float16.scan import scan_float16
from edgevit.quantization.float_fallback import note_float_in
from edgevit.quantization.plan import QuantizationPlan, Trial
from edgevit.quantization.ptq import CalibrationImages, ExactRewrites, FloatModel, PtqModel, optimize
from edgevit.recipes import NO_REWRITES, Observer, ObserverChoice, Rewrites
from edgevit.stages.build import Compiled, add, check_gives, check_takes, compile_variant, variant_name
from edgevit.stages.calibrate import TABLE, Selection, calibrated
from edgevit.stages.convolution_race import Reference, choose_convolutions
from edgevit.stages.draft import Draft, SecondPass
from edgevit.stages.fallback import HELD_OUT, AccuracyCriteria, evaluation_images, restore_accuracy
from edgevit.stages.images import DataSource, LabelledBatches
from edgevit.stages.precisions import FLOAT16_PLAN, NEED_IMAGES, OPTIMIZED, PLANNED, PLANS, Decided, calibrating
from edgevit.stages.results import BuildResult
from edgevit.system import peak_rss_mb
from edgevit.targets import Target

#: What one engine may have against a model that others take.
_ENGINES_OWN = (VerificationError, GraphError, BundleError, MissingDependencyError)
_BATCH = 16
_JUDGED = 16  # images that convolutions are judged by
_NO_CRITERIA = AccuracyCriteria()


def quantize(
    bundle: Bundle,
    images: DataSource | None,
    targets: Mapping[str, Target],
    precision: Precision = "int8",
    *,
    observer: ObserverChoice = "minmax",
    rewrites: Rewrites = NO_REWRITES,
    criteria: AccuracyCriteria = _NO_CRITERIA,
    progress: Progress = SILENT,
) -> BuildResult:
    """Add a variant in ``precision`` for each of ``targets``, and the float32 one to compare it with if it is missing.

    ``images`` may be None where none are looked at; ``observer`` and ``rewrites`` are as in ``Recipe``, for INT8. Where
    INT8 cannot keep ``criteria``, what comes nearest is added, and its variants' ``limit`` says so. The bundle changes
    only once all variants are built and checked. A variant that cannot be made does not undo the others: it is
    among the ``failed``.

    Raises:
        InputError: if two targets would make the same variant, one does not take ``precision``, images are needed, or
            ``criteria`` means nothing for them.
        DataError: if there are no images to calibrate with.
        VerificationError, GraphError, BundleError, MissingDependencyError: if no variant can be made; the bundle is as
            it was.
    """
    started = time.monotonic()
    check_unique_variants(targets, precision)
    _check_images(bundle, images, precision, progress)
    criteria.check(bundle, precision)
    if len(targets) == 1:  # of several, others may do
        check_gives(bundle, *next(iter(targets.items())))
    float32 = bundle.verify_float32()
    with scratch_folder() as scratch:
        rules = _Rules(tuple(targets.values()), observer, rewrites, criteria)
        needed = precision in NEED_IMAGES
        decided = _decide(bundle, float32, images, precision, rules, scratch, progress) if needed else {}
        failed: dict[str, EdgeViTError] = {}
        made = list(_compile(bundle, float32, targets, precision, decided, failed, scratch, progress))
        if failed and not any(each.precision == precision for each in made):
            raise next(iter(failed.values()))
        for name, error in failed.items():
            progress.note(f"{name} cannot be made: {error.message}")
        _note_float_in(made, scratch)
        if precision in NEED_IMAGES:
            bundle = _add_extra(bundle, scratch / _folder(precision))
        for compiled in made:
            bundle = add(bundle, compiled, progress)
        if precision in PLANNED:
            Draft(bundle.path).remove()
    for one in decided.values():
        if isinstance(one, PtqModel):
            let_go(one.model)
    kept = next((plan.float32_nodes for plan in decided.values() if isinstance(plan, Float16Plan)), {})
    costs = {
        scheme_of(dialect): one.plan.sensitivity
        for dialect, one in decided.items()
        if isinstance(one, PtqModel) and one.plan.sensitivity
    }
    return BuildResult(
        bundle=bundle,
        names=tuple(each.name for each in made),
        seconds=time.monotonic() - started,
        peak_rss_mb=peak_rss_mb(),
        float32_nodes=kept,
        sensitivity=costs,
        failed=failed,
        unreadable=() if images is None else images.unreadable.names,
    )


def check_unique_variants(targets: Mapping[str, Target], precision: Precision = "int8") -> None:
    """Check that each of ``targets`` takes ``precision``, and that no two of them would make the same variant.

    Raises:
        InputError: if one does not, or two would.
    """
    names: dict[str, str] = {}
    for name, target in targets.items():
        check_takes(name, target, precision)
        variant = variant_name(target, precision)
        if variant in names:
            raise InputError(
                f"targets {names[variant]} and {name} would both make the variant {variant}",
                remedy="give one of them, and make another bundle for the other",
            )
        names[variant] = name


def _check_images(bundle: Bundle, images: DataSource | None, precision: Precision, progress: Progress) -> None:
    if precision == "float32":
        raise InputError(
            "float32 is not quantized", remedy=f"edgevit build {bundle.path} --target TARGET --precision float32"
        )
    if images is None and precision in NEED_IMAGES:
        raise InputError(
            f"{precision} needs calibration images",
            remedy=f"{calibrating(bundle, precision)}, or --precision int8-dynamic, which needs none",
        )
    if images is not None and precision not in NEED_IMAGES:
        progress.note(f"{precision} needs no images: those of {images.name} are not looked at")


def _folder(precision: Precision) -> str:
    return (FLOAT16_PLAN if precision == "fp16" else PLANS["asymmetric"]).partition("/")[0]


class _Rules(NamedTuple):
    """What INT8 is calibrated for, and how ranges are read off."""

    targets: tuple[Target, ...]
    observer: ObserverChoice
    rewrites: Rewrites
    criteria: AccuracyCriteria

    @property
    def dialects(self) -> tuple[str, ...]:
        """Return the dialects of the targets."""
        return tuple(target.dialect for target in self.targets)


def _decide(
    bundle: Bundle,
    float32: VerifiedFile,
    images: DataSource | None,
    precision: Precision,
    rules: _Rules,
    scratch: Path,
    progress: Progress,
) -> Mapping[str, Decided]:
    """Look at the images, write what follows from them into a folder of ``scratch``, and return it for each dialect."""
    assert images is not None  # noqa: S101 - _check_images has seen to it
    folder = scratch / _folder(precision)
    folder.mkdir()
    if precision == "fp16":
        return dict.fromkeys(rules.dialects, _scan(bundle, float32, images, folder, progress))
    optimized = _calibrate(bundle, float32, images, rules, folder, progress)
    _keep_others(bundle, folder)
    return {dialect: optimized[scheme_of(dialect)] for dialect in rules.dialects}


def _compile(
    bundle: Bundle,
    float32: VerifiedFile,
    targets: Mapping[str, Target],
    precision: Precision,
    decided: Mapping[str, Decided],
    failed: dict[str, EdgeViTError],
    scratch: Path,
    progress: Progress,
) -> Iterator[Compiled]:
    """Yield the variants that can be made, and note in ``failed`` why others cannot."""
    present = {variant.name for variant in bundle.manifest.variants}
    for target_name, target in targets.items():
        wanted: tuple[Precision, ...] = ("float32", precision)
        for each in wanted if variant_name(target, "float32") not in present else wanted[1:]:
            told = decided.get(target.dialect) if each == precision else None
            try:
                yield compile_variant(bundle, float32, target_name, target, each, told, scratch, progress=progress)
            except _ENGINES_OWN as error:
                failed[variant_name(target, each)] = error


def _note_float_in(made: Sequence[Compiled], scratch: Path) -> None:
    """Note in the plans in ``scratch`` which layers an engine has no integer kernel for."""
    for scheme, place in PLANS.items():
        reasons = {each.target.dialect: each.float_in for each in made if each.float_in}
        for dialect in [dialect for dialect in reasons if scheme_of(dialect) == scheme]:
            plan = note_float_in(QuantizationPlan.load(scratch / place), dialect, reasons[dialect])
            plan.save(scratch / place)


def _scan(bundle: Bundle, float32: VerifiedFile, images: DataSource, folder: Path, progress: Progress) -> Float16Plan:
    """Write into ``folder`` which nodes float16 is no good for."""
    dataset = images.load(progress)
    progress.note(f"Scanning {len(dataset)} images of {dataset.name} for values that float16 cannot hold")
    read = (
        batch.images
        for batch in batches(dataset, bundle.manifest.preprocess, batch_size=_BATCH, unreadable=images.unreadable)
    )
    with open_graph(float32.path) as model:
        batches_of = -(-len(dataset) // _BATCH)
        plan = scan_float16(model, read, total=batches_of, model_sha256=float32.sha256, progress=progress)
    plan.save(folder / "plan.json")
    return plan


def _calibrate(
    bundle: Bundle,
    float32: VerifiedFile,
    images: DataSource,
    rules: _Rules,
    folder: Path,
    progress: Progress,
) -> dict[Scheme, PtqModel]:
    """Write the table of ranges, and for each way to store activations the optimized model and its plan."""
    dataset, held_out = _load(bundle, images, rules.criteria, progress)
    selection = Selection.of(images, bundle.manifest.preprocess, progress, dataset=dataset)
    source = FloatModel.read(float32.path, float32.sha256)
    table = calibrated(bundle, source, selection, progress)
    table.save(folder.parent / TABLE)
    keeper = SecondPass(Draft(bundle.path), selection.sha256, images.unreadable, progress)
    calibration = CalibrationImages(selection.images_alone, len(selection.dataset), progress, keeper)
    check, independent = ExactRewrites(float32.path, calibration), bundle.manifest.independent
    typed = bundle.manifest.typed_outputs
    choices = _choices(float32.path, source, calibration, rules, independent=independent, typed=typed)
    optimized: dict[Scheme, PtqModel] = {}
    for scheme, (observer, rewrites, trials) in choices.items():
        own = source.model if len(optimized) == len(choices) - 1 else source.model.clone()  # the last one uses it up
        one = optimize(
            own,
            table,
            calibration,
            scheme,
            check=check,
            observer=observer,
            rewrites=rewrites,
            keep_unrounded=held_out is not None,
        )
        one = replace(one, plan=msgspec.structs.replace(one.plan, trials=trials))
        optimized[scheme] = _with_convolutions(bundle, float32, one, scheme, rules, calibration, folder.parent)
    if held_out is not None:
        optimized = restore_accuracy(
            rules.criteria,
            bundle,
            float32,
            held_out,
            images.unreadable,
            optimized,
            rules.targets,
            folder.parent,
            progress,
        )
    return {
        scheme: one.save(folder.parent / OPTIMIZED[scheme], folder.parent / PLANS[scheme])
        for scheme, one in optimized.items()
    }


def _with_convolutions(
    bundle: Bundle,
    float32: VerifiedFile,
    one: PtqModel,
    scheme: Scheme,
    rules: _Rules,
    images: CalibrationImages,
    scratch: Path,
) -> PtqModel:
    """Return ``one`` with those convolutions float that do not pay, in each dialect of the targets of ``scheme``."""
    if not one.plan.integer_convolutions():
        return one
    some = list(islice(one_by_one(images.read()), _JUDGED))
    reference = Reference(np.concatenate(some), Evaluator(float32.path, some).reference)
    for target in rules.targets:
        if scheme_of(target.dialect) == scheme:
            one = choose_convolutions(bundle, float32, target, "int8", one, scratch, reference, images.progress)
    return one


def _load(
    bundle: Bundle, images: DataSource, criteria: AccuracyCriteria, progress: Progress
) -> tuple[Dataset, LabelledBatches | None]:
    """Return the images to calibrate with, and those to judge by if there is anything to be judged."""
    if not criteria:
        return images.load(progress), None
    dataset, apart = images.load_apart(HELD_OUT, progress)
    held_out = evaluation_images(criteria, apart, bundle.manifest, progress)
    progress.note(f"Judging by {len(held_out)} images of {dataset.name} that are not calibrated with")
    return dataset, held_out


def _choices(
    float32: Path,
    source: FloatModel,
    images: CalibrationImages,
    rules: _Rules,
    *,
    independent: bool,
    typed: Sequence[Output],
) -> dict[Scheme, tuple[Observer, Rewrites, tuple[Trial, ...]]]:
    """Return observer and rewrites for each way to store activations, and what was tried if the recipe asks for it."""
    schemes = dict.fromkeys(map(scheme_of, rules.dialects))
    if rules.observer != "auto" and rules.rewrites.alpha != "auto":
        return dict.fromkeys(schemes, (rules.observer, rules.rewrites, ()))
    found = search_ranges(
        float32,
        source.model,
        images,
        schemes,
        rotated=source.rotated,
        observer=rules.observer,
        rewrites=rules.rewrites,
        independent=independent,
        typed=typed,
    )
    for scheme, trials in found.items():
        figures = "; ".join(trial.say() for trial in trials)
        images.progress.note(f"Tried for {scheme} activations, the nearest to float32 first: {figures}")
    return {
        scheme: (trials[0].observer, msgspec.structs.replace(rules.rewrites, alpha=trials[0].alpha), trials)
        for scheme, trials in found.items()
    }


def _keep_others(bundle: Bundle, folder: Path) -> None:
    """Copy to ``folder`` what the bundle has and what was not made again: variants of it are there still."""
    present = {logical_path(file) for file in bundle.manifest.extra}
    for place in (*PLANS.values(), *OPTIMIZED.values()):
        if place in present and not (folder.parent / place).exists():
            shutil.copyfile(bundle.verify_extra(place).path, folder.parent / place)


def _add_extra(bundle: Bundle, made: Path) -> Bundle:
    def fill(folder: Path) -> Sequence[Path]:
        return [Path(shutil.copyfile(file, folder / file.name)) for file in sorted(made.iterdir())]

    return bundle.add_extra(made.name, fill)
