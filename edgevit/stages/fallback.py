"""Which layers INT8 must leave in float, judged on images that were not calibrated with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest, Precision
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.data.dataset import Dataset
from edgevit.errors import DataError, InputError
from edgevit.evaluation.gate import MIN_COSINE, check_limits
from edgevit.models.outputs import Output
from edgevit.progress import Progress
from edgevit.quantization.accuracy.criteria import CosineLimit, KlLimit, Limit, SqnrLimit, Top1Limit
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.output_distance import has_logits
from edgevit.quantization.accuracy.search import Search
from edgevit.quantization.accuracy.sensitivity import Form, rank_layers
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.plan import SensitivityMetric
from edgevit.quantization.ptq import PtqModel
from edgevit.recipes import FallbackLimits, Recipe
from edgevit.shell import quoted
from edgevit.stages.images import LabelledBatches, several_labels
from edgevit.targets import Target, load_target

#: Images to judge by at the most, and how many of them each layer by itself is judged on.
HELD_OUT = 256
RANKED = 32

_BATCH = 16
_NUMBERS = 1 << 25  # of outputs that are judged by, where a model gives many for an image


@dataclass(frozen=True, slots=True)
class AccuracyCriteria:
    """What INT8 may cost before layers go back to float, and whether it shall be told what each layer costs alone.

    ``max_drop`` in points of top-1, ``max_kl`` in nats where images have no labels, or of logits among several outputs,
    ``min_cosine`` of an embedding model's features, or of the worst of several outputs. There is nothing to do where no
    limit is given and no ``costs`` are wanted.
    """

    max_drop: float | None = None
    max_kl: float | None = None
    min_cosine: float | None = None
    costs: bool = False

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return self != AccuracyCriteria()

    @property
    def limited(self) -> bool:
        """Whether there is a limit to keep."""
        return any(limit is not None for limit in (self.max_drop, self.max_kl, self.min_cosine))

    @classmethod
    def of(cls, recipe: Recipe, *, classes: int, typed: tuple[Output, ...] = ()) -> AccuracyCriteria:
        """Return the limits of ``recipe`` that mean something for a model of ``classes``; 0: an embedding model.

        Where there are logits among ``typed`` outputs, its ``max_kl`` counts if it has no ``min_cosine``.
        """
        if classes:
            return cls(max_drop=recipe.max_drop, max_kl=recipe.max_kl)
        if recipe.min_cosine is None and has_logits(typed):
            return cls(max_kl=recipe.max_kl)
        return cls(min_cosine=recipe.min_cosine)

    def check(self, bundle: Bundle, precision: Precision) -> None:
        """Check that what is wished for means something.

        Raises:
            InputError: if it is not INT8 that is made, a limit is another kind of model's, or two would decide.
        """
        if self and precision != "int8":
            raise InputError(
                f"{precision} has no layers that can go back to float: limits and --sensitivity are for int8",
                remedy=f"leave them out, and see what it costs: edgevit validate {quoted(bundle.path)} --data IMAGES",
            )
        classes = bundle.manifest.classes
        logits = has_logits(bundle.manifest.typed_outputs)
        if logits and self.max_drop is not None:
            raise InputError(
                "--max-drop is for models that give nothing but logits, and this one has other outputs, too",
                remedy="say how far its logits may move: --max-kl 0.005",
            )
        check_limits(classes=classes, max_drop=self.max_drop, min_cosine=self.min_cosine)
        if logits and self.max_kl is not None and self.min_cosine is not None:
            raise InputError(
                "--max-kl is of the logits, --min-cosine of the worst output: one limit can decide",
                remedy="leave one of them out; edgevit validate has gates for each output",
            )
        if not classes and not logits and self.max_kl is not None:
            raise InputError(
                "--max-kl is for classifiers, and this model gives features",
                remedy=f"say how near the features must be to float32's: --min-cosine {MIN_COSINE:g}",
            )

    def limit(
        self, labels: NDArray[np.int64] | None, *, independent: bool = False, typed: tuple[Output, ...] = ()
    ) -> Limit | None:
        """Return what to search by, for images with ``labels`` (N,) if the model's top-1 is to count.

        ``independent`` logits are decisions of their own; ``typed`` are outputs of other kinds.
        """
        if self.max_drop is not None and labels is not None:
            return Top1Limit(self.max_drop, labels)
        if self.max_kl is not None:
            return KlLimit(self.max_kl, independent, typed)
        return None if self.min_cosine is None else CosineLimit(self.min_cosine, typed)


def evaluation_images(
    criteria: AccuracyCriteria, held_out: Dataset, manifest: Manifest, progress: Progress
) -> LabelledBatches:
    """Return the images of ``held_out`` that ``criteria`` is judged by, with labels if top-1 decides.

    Raises:
        InputError: if top-1 is to decide, and the images have no labels that are the model's.
    """
    unlabelled = LabelledBatches(held_out, None, np.arange(len(held_out)))
    if criteria.max_drop is None:
        return unlabelled
    try:
        several = several_labels(manifest)
        labelled = unlabelled if several else LabelledBatches.of(held_out, manifest.outcomes)
        why = "an image may have several labels" if several else "they have no labels"
    except DataError as error:
        labelled, why = unlabelled, error.message
    if labelled.labels is not None:
        one = 100 / len(labelled)
        progress.note(f"Checking top-1 on {len(labelled)} images, each of which is {one:.2g} points; KL is not checked")
        return labelled
    if criteria.max_kl is None:
        raise InputError(
            f"--max-drop cannot be checked on the images of {held_out.name}: {why}",
            remedy="set a limit on KL instead, such as --max-kl 0.005, or give images with the model's labels",
        )
    progress.note(f"Top-1 cannot be checked on these images ({why}): only --max-kl counts")
    return unlabelled


NO_CRITERIA = AccuracyCriteria()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images that nothing was fitted to: all of them, those that each layer by itself is judged on, and the limit."""

    evaluator: Evaluator
    few: Evaluator
    limit: Limit | None

    @classmethod
    def of(
        cls,
        criteria: AccuracyCriteria,
        manifest: Manifest,
        float32: VerifiedFile,
        images: LabelledBatches,
        unreadable: Unreadable,
    ) -> HeldOut:
        """Read ``images``, and run the file ``float32`` on them.

        Raises:
            DataError: if none of the images can be read.
        """
        independent, typed = manifest.independent, manifest.typed_outputs
        most = max(1, _NUMBERS // (_BATCH * manifest.width)) if typed else None  # all that they give is kept
        batches = images.read(manifest.preprocess, batch_size=_BATCH, unreadable=unreadable)
        read = list(islice(batches, most))
        seen = np.concatenate([batch.indices for batch in read])
        limit = criteria.limit(
            None if images.labels is None else images.labels[seen], independent=independent, typed=typed
        )
        evaluator, few = (
            Evaluator(float32.path, [batch.images for batch in part], independent=independent, typed=typed)
            for part in (read, read[: RANKED // _BATCH])
        )
        return cls(evaluator, few, limit)


def fallback_limit(limits: FallbackLimits, manifest: Manifest) -> Limit | None:
    """Return which of a recipe's ``limits`` counts for the model of ``manifest``, if one does."""
    if manifest.classes:
        return None if limits.max_kl is None else KlLimit(limits.max_kl, manifest.independent)
    return None if limits.min_sqnr_db is None else SqnrLimit(limits.min_sqnr_db, manifest.typed_outputs)


def return_layers(
    ptq: PtqModel,
    held_out: HeldOut,
    forms: Sequence[Form],
    scratch: Path,
    *,
    measure: SensitivityMetric,
    costs: bool = False,
    progress: Progress,
) -> PtqModel:
    """Return ``ptq`` with as many layers back in float as the limit takes; its plan says which, with the verdict.

    ``ptq`` must have its weights as they were before rounding. With ``costs``, or where layers must go back, the plan
    says what each costs alone.
    """
    rank = partial(rank_layers, ptq, held_out.few, scratch=scratch, measure=measure, progress=progress)
    if costs and not ptq.plan.sensitivity:
        ptq = replace(ptq, plan=msgspec.structs.replace(ptq.plan, sensitivity=rank(forms[0])))
    if held_out.limit is None:
        return ptq
    progress.note(f"Looking for layers that must be float ({scheme_of(forms[0].dialect)} activations)")
    return Search(ptq, held_out.evaluator, forms, held_out.limit, scratch, progress).run(rank)


def forms_of(scheme: Scheme, targets: Iterable[Target], progress: Progress) -> list[Form]:
    """Return the forms that are made for ``targets`` of ``scheme``; of those that cannot run here, one that can."""
    forms: list[Form] = []
    for target in targets:
        if scheme_of(target.dialect) != scheme:
            continue
        shown = target if target.device == "CPU" else load_target("portable")
        if shown is not target:
            progress.note(f"{target.backend} runs on the device: its INT8 is checked here in the portable form")
        form = Form(shown.dialect, shown.backend, shown.settings_for("int8"), shown.weight_bits_on())
        if form not in forms:
            forms.append(form)
    return forms
