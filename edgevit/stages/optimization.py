"""Make the optimized models of a bundle from calibration images: one for each way to store activations.

They are judged by the variants that are built from them. Those of an optimized model that is too far from float32 are
built again from one that has more layers in float.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from edgevit.bundle.manifest import TokenMerging
from edgevit.bundle.reading import VerifiedFile, logical_path
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable, batches
from edgevit.data.dataset import Dataset
from edgevit.graph.saving import save
from edgevit.graph.weights import let_go, letting_go
from edgevit.progress import Progress
from edgevit.quantization.accuracy.criteria import describe_loss, holds, measure_loss
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.range_search import search_ranges
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.exact_rewrites import ExactRewrites
from edgevit.quantization.plan import LayerSensitivity, Trial
from edgevit.quantization.ptq import (
    CalibrationImages,
    FloatModel,
    PtqModel,
    optimize,
    unrounded_weights,
)
from edgevit.quantization.rewrites.passes import Options
from edgevit.stages.build import Compiled
from edgevit.stages.calibrate import TABLE, Selection, calibrated
from edgevit.stages.convolution_forms import Reference
from edgevit.stages.convolution_race import choose_convolutions
from edgevit.stages.draft import Draft, SecondPass
from edgevit.stages.fallback import (
    HELD_OUT,
    HeldOut,
    evaluation_images,
    fallback_limit,
    forms_of,
    return_layers,
)
from edgevit.stages.images import DataSource, LabelledBatches
from edgevit.stages.precisions import OPTIMIZED, PLANS, merged_place
from edgevit.stages.rules import Rules
from edgevit.targets import Target

_JUDGED = 16  # images that variants, and convolutions, are judged by
_SEARCHED = 64  # where that is not good enough: of 16, one can be far from float32 by chance
_BATCH = 4  # of them are read at a time: memory follows
_NUMBERS = 1 << 24  # of outputs at the most, where a model gives many for an image


class Optimizer:
    """Makes the optimized models and their plans, and writes them below a folder."""

    def __init__(
        self,
        bundle: Bundle,
        float32: VerifiedFile,
        images: DataSource,
        rules: Rules,
        scratch: Path,
        progress: Progress,
        *,
        merging: TokenMerging | None = None,
        student: Path | None = None,
    ) -> None:
        """Take the bundle's file ``float32``, the calibration ``images``, and a folder to write in.

        With ``merging`` tokens are merged, and ranges and weights are those of the merged tokens. ``student`` is a
        float32 file whose weights take the place of the bundle's, which it is judged by still.
        """
        self._merging = merging
        self._source = float32.path if student is None else student
        self._bundle, self._float32, self._images = bundle, float32, images
        self._rules, self._scratch, self._progress = rules, scratch, progress
        # Where a token goes into another one by rounding, no layer in float makes up for it: a budget takes that.
        judged = rules.criteria.limited or merging is not None
        self._limit = None if judged else fallback_limit(rules.fallback, bundle.manifest)
        #: The optimized model for each way to store activations.
        self.models: dict[Scheme, PtqModel] = {}
        self._evaluator: Evaluator | None = None
        self._options: dict[Scheme, Options] = {}

    def run(self) -> None:
        """Make the models.

        Raises:
            GraphError: if the model cannot be quantized.
            DataError: if there are no images, or too few to judge by.
            VerificationError: if a rewritten model gives other answers.

        """
        self._reference = self._float32.path if self._merging is None else self._merged(self._merging)
        dataset, self._beside, held_out = self._load()
        selection = Selection.of(self._images, self._bundle.manifest.preprocess, self._progress, dataset=dataset)
        source = self._read()
        kept = self._merging is None or self._merging.student_sha256 is None
        self._table = calibrated(self._bundle, source, selection, self._progress, keep=kept)
        self._table.save(self._scratch / TABLE)
        self._optimize(source, selection)
        self._evaluator = self._evaluator_of(_JUDGED) if self._is_judged() else None
        for scheme in self.models:
            self._race_convolutions(scheme)
        if held_out is not None:
            judges = HeldOut.of(
                self._rules.criteria, self._bundle.manifest, self._float32, held_out, self._images.unreadable
            )
            for scheme in self.models:
                self._return_layers(scheme, judges)
        for scheme in self.models:
            self._save(scheme)
        self._keep_others()

    def _read(self) -> FloatModel:
        schedule = () if self._merging is None else self._merging.schedule
        return FloatModel.read(self._source, self._float32.sha256, token_schedule=schedule)

    def _merged(self, merging: TokenMerging) -> Path:
        """Write the float32 model with its tokens merged: what rounding costs is judged beside that."""
        sha256 = self._float32.sha256
        merged = FloatModel.read(self._source, sha256, rotate=False, token_schedule=merging.schedule)
        with letting_go(merged.model) as model:
            return save(model, self._scratch / "float32-merged.onnx").path

    def model_for(self, target: Target) -> PtqModel:
        """Return the model that the variant of ``target`` is made from."""
        return self.models[scheme_of(target.dialect)]

    @property
    def held_out_evaluator(self) -> Evaluator | None:
        """Images that variants are judged by, if they are."""
        return self._evaluator if self._limit is not None else None

    @property
    def sensitivity(self) -> dict[Scheme, tuple[LayerSensitivity, ...]]:
        """What each layer costs alone, where that was measured."""
        return {scheme: one.plan.sensitivity for scheme, one in self.models.items() if one.plan.sensitivity}

    def let_go(self) -> None:
        """Let go of the models' weights."""
        for one in self.models.values():
            let_go(one.model)

    def restore(self, made: Iterable[Compiled]) -> list[Scheme]:
        """Return layers to float where an INT8 variant of ``made`` breaks the recipe's limit; say in which models.

        Where none of a model runs here, the portable form of its plan is judged.
        """
        if self._limit is None or self._evaluator is None:
            return []
        kept: dict[Scheme, bool] = {}
        variants = [each for each in made if each.precision == "int8"]
        for each in variants:
            if each.outputs is not None:
                scheme = scheme_of(each.target.dialect)
                kept[scheme] = self._keeps_limit(each) and kept.get(scheme, True)
        schemes = dict.fromkeys(scheme_of(each.target.dialect) for each in variants)
        far = [scheme for scheme in schemes if not kept.get(scheme, False)]
        if not far:
            return []
        judges, changed = HeldOut(self._evaluator_of(_SEARCHED), self._evaluator, self._limit), []
        for scheme in far:
            before = self.models[scheme]
            self._return_layers(scheme, judges)
            plan = self.models[scheme].plan
            same = plan.float_layers() == before.plan.float_layers() and plan.limit is not None and plan.limit.passed
            if same and scheme not in kept:
                self.models[scheme] = before  # what was built for a device is not built again for a verdict alone
            else:
                self._save(scheme)
                changed.append(scheme)
        return changed

    def _keeps_limit(self, made: Compiled) -> bool:
        assert self._limit is not None and self._evaluator is not None and made.outputs is not None  # noqa: S101, PT018
        loss = measure_loss(self._limit, self._evaluator.reference, made.outputs)
        if holds(self._limit, loss):
            return True
        said = f"{describe_loss(self._limit, loss)} on {len(self._evaluator)} images, {self._limit.say_allowed()}"
        self._progress.note(f"{made.name} may be too far from float32: {said}")
        return False

    def _optimize(self, source: FloatModel, selection: Selection) -> None:
        keeper = SecondPass(Draft(self._bundle.path), selection.sha256, self._images.unreadable, self._progress)
        images = CalibrationImages(selection.images_alone, len(selection.dataset), self._progress, keeper)
        schedule = () if self._merging is None else self._merging.schedule
        check = ExactRewrites(self._source, images.read, token_schedule=schedule)
        choices = self._choices(source, images)
        for scheme, (options, trials) in choices.items():
            one = optimize(
                # the last one uses it up
                source.model if len(self.models) == len(choices) - 1 else source.model.clone(),
                self._table,
                images,
                scheme,
                check=check,
                observer=options.observer,
                rewrites=options.rewrites,
            )
            self._options[scheme] = options
            plan = msgspec.structs.replace(one.plan, trials=trials, token_merging=self._merging)
            self.models[scheme] = replace(one, plan=plan)

    def _return_layers(self, scheme: Scheme, judges: HeldOut) -> None:
        source = self._read()
        weights = unrounded_weights(source.model, self._table, self._options[scheme])
        let_go(source.model)
        found = return_layers(
            replace(self.models[scheme], unrounded=weights),
            judges,
            forms_of(scheme, self._rules.targets, self._progress),
            self._scratch,
            measure="kl" if self._bundle.manifest.classes else "sqnr_db",
            costs=self._rules.criteria.costs,
            progress=self._progress,
        )
        if found.plan.limit is not None:
            judged = tuple(target.dialect for target in self._rules.targets_of(scheme))
            limit = msgspec.structs.replace(found.plan.limit, dialects=judged)
            found = replace(found, plan=msgspec.structs.replace(found.plan, limit=limit))
        self.models[scheme] = found

    def _load(self) -> tuple[Dataset, Dataset, LabelledBatches | None]:
        """Return the images to calibrate with, a few to judge by, and those that are held out for the criteria."""
        criteria, progress = self._rules.criteria, self._progress
        if not criteria:
            return *self._images.load_beside(_SEARCHED, progress), None
        dataset, apart = self._images.load_apart(HELD_OUT, progress)
        held_out = evaluation_images(criteria, apart, self._bundle.manifest, progress)
        progress.note(f"Measuring accuracy on {len(held_out)} images of {dataset.name} that are not calibrated with")
        return dataset, apart, held_out

    def _is_judged(self) -> bool:
        return self._limit is not None or any(each.plan.integer_convolutions() for each in self.models.values())

    def _evaluator_of(self, most: int) -> Evaluator:
        """Return what float32 gives for ``most`` images that can be read, those first that are not calibrated with.

        It is asked for one at a time, as those that it judges will be: for more, OpenVINO would compile each once more.
        """
        manifest = self._bundle.manifest
        most = max(1, min(most, _NUMBERS // manifest.width))
        read = batches(
            self._beside,
            manifest.preprocess,
            batch_size=_BATCH,
            unreadable=Unreadable(),  # most are no calibration images
        )
        images = islice(single_images(batch.images for batch in read), most)
        return Evaluator(self._reference, images, independent=manifest.independent, typed=manifest.typed_outputs)

    def _race_convolutions(self, scheme: Scheme) -> None:
        """Have those convolutions float that do not pay, in each dialect of the targets of ``scheme``."""
        one = self.models[scheme]
        if self._evaluator is None or not one.plan.integer_convolutions():
            return
        images = np.concatenate(self._evaluator.images)
        reference = Reference(images, self._evaluator.reference)
        for target in self._rules.targets_of(scheme):
            one = choose_convolutions(
                self._bundle, self._float32, target, "int8", one, self._scratch, reference, self._progress
            )
        self.models[scheme] = one

    def _choices(
        self, source: FloatModel, images: CalibrationImages
    ) -> dict[Scheme, tuple[Options, tuple[Trial, ...]]]:
        """Return for each way to store activations how it is optimized, and what was tried if the recipe asks so."""
        rules, manifest = self._rules, self._bundle.manifest
        if rules.observer != "auto" and rules.rewrites.alpha != "auto":
            return {
                scheme: (Options(scheme, self._table.images, rules.observer, rules.rewrites), ())
                for scheme in rules.schemes
            }
        found = search_ranges(
            self._reference,
            source.model,
            images,
            rules.schemes,
            rotated=source.rotated,
            observer=rules.observer,
            rewrites=rules.rewrites,
            independent=manifest.independent,
            typed=manifest.typed_outputs,
        )
        choices = {}
        for scheme, trials in found.items():
            figures = "; ".join(trial.say() for trial in trials)
            self._progress.note(f"Tried for {scheme} activations, the nearest to float32 first: {figures}")
            rewrites = msgspec.structs.replace(rules.rewrites, alpha=trials[0].alpha)
            choices[scheme] = Options(scheme, self._table.images, trials[0].observer, rewrites), trials
        return choices

    def _save(self, scheme: Scheme) -> None:
        self.models[scheme] = self.models[scheme].save(self._scratch / OPTIMIZED[scheme], self._scratch / PLANS[scheme])

    def _keep_others(self) -> None:
        """Copy what the bundle has and what was not made again: variants of it are there still."""
        present = {logical_path(file) for file in self._bundle.manifest.extra}
        for place in (*PLANS.values(), *OPTIMIZED.values()):
            kept = merged_place(place, None if self._merging is None else self._merging.budget)
            if kept in present and not (self._scratch / place).exists():
                shutil.copyfile(self._bundle.verify_extra(kept).path, self._scratch / place)
