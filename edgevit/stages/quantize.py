"""``edgevit quantize``: calibrate once if the precision asks for it, then build its variant for each target."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgevit.bundle.manifest import Precision, TokenMerging
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.data.batches import batches
from edgevit.errors import BundleError, EdgeViTError, GraphError, InputError, MissingDependencyError, VerificationError
from edgevit.files import scratch_folder
from edgevit.graph.linears import open_graph
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.float16.convert import Float16Plan
from edgevit.quantization.float16.scan import scan_float16
from edgevit.quantization.float_fallback import note_float_in
from edgevit.quantization.plan import QuantizationPlan
from edgevit.shell import quoted
from edgevit.stages.build import (
    Compiled,
    add,
    check_gives,
    check_merges,
    check_takes,
    compile_variant,
    refused_of,
    variant_name,
)
from edgevit.stages.calibrate import TABLE
from edgevit.stages.draft import Draft
from edgevit.stages.images import DataSource
from edgevit.stages.optimization import Optimizer
from edgevit.stages.precisions import (
    FLOAT16_PLAN,
    NEED_IMAGES,
    PLANS,
    Decided,
    EngineSource,
    calibrating,
    merged_place,
    write_float32,
)
from edgevit.stages.results import BuildResult, raise_first
from edgevit.stages.rules import Rules
from edgevit.system import peak_rss_mb
from edgevit.targets import Target

#: What one engine may have against a model that others take.
ENGINES_OWN = (VerificationError, GraphError, BundleError, MissingDependencyError)
_BATCH = 16
_RULES = Rules()


def quantize(
    bundle: Bundle,
    images: DataSource | None,
    targets: Mapping[str, Target],
    precision: Precision = "int8",
    *,
    rules: Rules = _RULES,
    merging: TokenMerging | None = None,
    student: Path | None = None,
    refused: Callable[[Mapping[str, Compiled]], Mapping[str, EdgeViTError]] | None = None,
    progress: Progress = SILENT,
) -> BuildResult:
    """Add a variant in ``precision`` for each of ``targets``, and the float32 one to compare it with if it is missing.

    ``images`` may be None where none are looked at; ``rules`` are for INT8 and FP8, and so is ``merging``, by which
    tokens are merged; ``student`` is a float32 file with weights for that. Where INT8 cannot keep their limits, what
    comes nearest is added, and its variants' ``limit`` says so. The bundle changes only once all variants are built and
    checked. A variant that cannot be made, or does not pay, does not undo the others: it is among the ``failed``. So
    are those that ``refused`` names, with its reasons.

    Raises:
        InputError: if two targets would make the same variant, one does not take ``precision``, images are needed, or
            the limits mean nothing for them.
        DataError: if there are no images to calibrate with.
        VerificationError, GraphError, BundleError, MissingDependencyError: if no variant can be made; the bundle is as
            it was.
    """
    started = time.monotonic()
    check_unique_variants(targets, precision)
    _check_images(bundle, images, precision, progress)
    check_merges(precision, None if merging is None else merging.budget)
    rules.criteria.check(bundle, precision)
    if len(targets) == 1:  # of several, others may do
        check_gives(bundle, *next(iter(targets.items())))
    float32 = bundle.verify_float32()
    with scratch_folder() as scratch:
        building = _Building(bundle, float32, precision, merging, scratch, progress)
        building.write_float32(targets.values())
        optimizer: Optimizer | None = None
        scanned: Float16Plan | None = None
        if images is None or precision not in NEED_IMAGES:
            building.build(targets, lambda _: None)
        elif precision == "fp16":
            (scratch / FLOAT16_PLAN).parent.mkdir()
            scanned = _scan(bundle, float32, images, scratch / FLOAT16_PLAN, progress)
            building.build(targets, lambda _: scanned)
        else:
            (scratch / TABLE).parent.mkdir()
            rules = replace(rules, targets=tuple(targets.values()))
            optimizer = Optimizer(bundle, float32, images, rules, scratch, progress, merging=merging, student=student)
            optimizer.run()
            building.build(targets, optimizer.model_for, optimizer.held_out_evaluator)
            if restored := optimizer.restore(building.made.values()):
                own = {name: target for name, target in targets.items() if scheme_of(target.dialect) in restored}
                building.build(own, optimizer.model_for)
        if refused is not None:
            building.refuse(refused)
            if not building.made:
                _clear(bundle, optimizer)
                return BuildResult(bundle=bundle, names=(), seconds=0.0, peak_rss_mb=0.0, failed=building.failed)
        building.check_any()
        _note_float_in(building.made.values(), scratch)
        if precision in NEED_IMAGES:
            bundle = _add_extra(bundle, scratch / _folder(precision), merging)
        for compiled in building.made.values():
            bundle = add(bundle, compiled, progress)
        _clear(bundle, optimizer)
    return BuildResult(
        bundle=bundle,
        names=tuple(building.made),
        seconds=time.monotonic() - started,
        peak_rss_mb=peak_rss_mb(),
        float32_nodes={} if scanned is None else scanned.float32_nodes,
        sensitivity={} if optimizer is None else optimizer.sensitivity,
        failed=building.failed,
        unreadable=() if images is None else images.unreadable.names,
        refused=refused_of(building.made.values()),
    )


def _clear(bundle: Bundle, optimizer: Optimizer | None) -> None:
    """Remove what was kept of the passes over images, which is needed no more, and let go of the weights."""
    if optimizer is not None:
        Draft(bundle.path).remove()
        optimizer.let_go()


class _Building:
    """The variants that are made, by name, and why others cannot be."""

    def __init__(
        self,
        bundle: Bundle,
        float32: VerifiedFile,
        precision: Precision,
        merging: TokenMerging | None,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._budget = None if merging is None else merging.budget
        self.made: dict[str, Compiled] = {}
        self.failed: dict[str, EdgeViTError] = {}
        self._sources: dict[str, EngineSource] = {}
        self._bundle, self._float32, self._precision = bundle, float32, precision
        self._scratch, self._progress = scratch, progress

    def write_float32(self, targets: Collection[Target]) -> None:
        """Write the float32 files of several engines from one reading; that of one is written when it is built.

        This is for the beginning: beside the optimized models, the model would take too much memory.
        """
        dialects = [target.dialect for target in targets if self._lacks_float32(target)]
        if len(dialects) > 1:
            places = {each: self._scratch / f"float32-{each}.onnx" for each in dialects}
            self._sources = write_float32(self._float32, places)

    def build(
        self, targets: Mapping[str, Target], decided: Callable[[Target], Decided], evaluator: Evaluator | None = None
    ) -> None:
        """Build what is ``decided`` for each of ``targets``, in the place of what was made for it before."""
        for name, target in targets.items():
            if self._lacks_float32(target):
                self._build(name, target, "float32", None, source=self._sources.get(target.dialect))
            self._build(name, target, self._precision, decided(target), evaluator=evaluator)

    def _lacks_float32(self, target: Target) -> bool:
        present = {variant.name for variant in self._bundle.manifest.variants}
        return variant_name(target, "float32") not in present | self.made.keys()

    def _build(
        self,
        target_name: str,
        target: Target,
        precision: Precision,
        decided: Decided,
        *,
        source: EngineSource | None = None,
        evaluator: Evaluator | None = None,
    ) -> None:
        name = variant_name(target, precision, None if precision == "float32" else self._budget)
        self.failed.pop(name, None)
        try:
            made = compile_variant(
                self._bundle,
                self._float32,
                target_name,
                target,
                precision,
                decided,
                self._scratch,
                source=source,
                evaluator=evaluator,
                progress=self._progress,
            )
        except ENGINES_OWN as error:
            self.made.pop(name, None)
            self.failed[name] = error
        else:
            self.made[name] = made  # in the place of what was made before

    def refuse(self, refused: Callable[[Mapping[str, Compiled]], Mapping[str, EdgeViTError]]) -> None:
        """Leave out those of the precision that ``refused`` names, and float32 where it would stand alone."""
        self.failed |= refused({name: each for name, each in self.made.items() if each.precision == self._precision})
        self.made = {name: each for name, each in self.made.items() if name not in self.failed}
        if not any(each.precision == self._precision for each in self.made.values()):
            self.made = {}

    def check_any(self) -> None:
        """Check that a variant of the precision was made, or that none pays, and say which were not.

        Raises:
            VerificationError, GraphError, BundleError, MissingDependencyError: if none was, and one might pay.
        """
        if not any(each.precision == self._precision for each in self.made.values()):
            raise_first(self.failed)
        for name, error in self.failed.items():
            self._progress.note(f"{name} cannot be made: {error.message}")


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
            "float32 is not quantized",
            remedy=f"edgevit build {quoted(bundle.path)} --target TARGET --precision float32",
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


def _note_float_in(made: Collection[Compiled], scratch: Path) -> None:
    """Note in the plans in ``scratch`` which layers an engine has no integer kernel for."""
    for scheme, place in PLANS.items():
        reasons = {each.target.dialect: each.float_in for each in made if each.float_in}
        for dialect in [dialect for dialect in reasons if scheme_of(dialect) == scheme]:
            plan = note_float_in(QuantizationPlan.load(scratch / place), dialect, reasons[dialect])
            plan.save(scratch / place)


def _scan(bundle: Bundle, float32: VerifiedFile, images: DataSource, place: Path, progress: Progress) -> Float16Plan:
    """Write to ``place`` which nodes float16 is no good for."""
    dataset = images.load(progress)
    progress.note(f"Scanning {len(dataset)} images of {dataset.name} for values that float16 cannot hold")
    read = (
        batch.images
        for batch in batches(dataset, bundle.manifest.preprocess, batch_size=_BATCH, unreadable=images.unreadable)
    )
    with open_graph(float32.path) as model:
        batches_of = -(-len(dataset) // _BATCH)
        plan = scan_float16(model, read, total=batches_of, model_sha256=float32.sha256, progress=progress)
    plan.save(place)
    return plan


def _add_extra(bundle: Bundle, made: Path, merging: TokenMerging | None) -> Bundle:
    def fill(folder: Path) -> Sequence[Path]:
        return [Path(shutil.copyfile(file, folder / file.name)) for file in sorted(made.iterdir())]

    return bundle.add_extra(merged_place(made.name, None if merging is None else merging.budget), fill)
