"""``edgevit validate``: every variant's accuracy against float32, on the files that ship."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import Session
from edgevit.backends.variants import backend_for, open_variant
from edgevit.bundle.manifest import PLANNED, Accuracy, Manifest
from edgevit.bundle.store import Bundle
from edgevit.data.dataset import Dataset, Subset
from edgevit.errors import MissingDependencyError
from edgevit.evaluation.accuracy import Interruption, answers_of, collect_logits, measure_accuracy
from edgevit.evaluation.accuracy_details import MOST_FLIPS, EngineSteps
from edgevit.evaluation.decisions import measure_decisions
from edgevit.evaluation.embedding import measure_embedding
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE, check_limits
from edgevit.evaluation.output_accuracy import OutputsMeasure, compare_outputs
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.files import shareable
from edgevit.progress import SILENT, Progress
from edgevit.stages.accuracy_details import keep_details
from edgevit.stages.images import DataSource, LabelledBatches, calibrated_on, several_labels
from edgevit.stages.own_onnx import compare_steps
from edgevit.stages.runnable import runnable

_REFERENCE = "float32"
_BATCH = 32
_NUMBERS = 1 << 22  # of outputs that are looked at together, where an image has many
_NO_LIMITS = OutputLimits()
#: Of so many images one is run once more, in the ONNX that a variant was built from: what it costs stays small.
_ONE_IN, _FEWEST_STEPS, _MOST_STEPS = 32, 4, 32


def validate(
    bundle: Bundle,
    images: DataSource,
    *,
    variants: Sequence[str] = (),
    max_drop: float | None = None,
    min_cosine: float | None = None,
    limits: OutputLimits = _NO_LIMITS,
    thumbnails: int = MOST_FLIPS,
    progress: Progress = SILENT,
) -> tuple[Bundle, tuple[str, ...]]:
    """Measure ``variants`` (all if none are named) on ``images``, note it in the bundle, and return whom it measured.

    What lies behind the figures goes beside the manifest (``evaluation/accuracy_details``), with so many ``thumbnails``
    of images whose answer changed for each variant.

    ``max_drop`` is the largest loss of top-1 in points that passes, or of decisions where each logit is one;
    ``min_cosine`` the smallest mean cosine similarity with float32 of an embedding model's features. None stands for
    ``gate``'s defaults. ``limits`` are those of models with outputs of other kinds; what is given beside goes before.

    Raises:
        InputError: if there is a limit of the kind that means nothing for this model.
        BundleError: if there is no such variant, or its files are damaged.
        DataError: if the images cannot be used.
    """
    manifest = bundle.manifest
    check_limits(classes=manifest.classes, max_drop=max_drop, min_cosine=min_cosine, dense=bool(manifest.typed_outputs))
    limits = _with_others(limits, max_drop, min_cosine)
    limits.check(manifest.typed_outputs)
    measured = measure_variants(bundle, images, variants=variants, progress=progress)
    return measured.noted(bundle, limits, thumbnails=thumbnails, progress=progress), measured.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What variants answered to the same images, and the variant that they are compared with, ``reference``.

    ``logits`` (N, classes) are by variant; those of a model with outputs of other kinds are ``compared`` only.
    ``labels`` (N,) are None where there are none; ``describe`` says what image 0..N-1 of ``dataset`` is called.
    ``steps`` tell by variant whether its engine computes what it was built from. Where Ctrl-C ended it,
    ``interrupted_of`` is how many images there would have been.
    """

    names: tuple[str, ...]
    reference: str
    logits: Mapping[str, NDArray[np.float32]]
    compared: Mapping[str, OutputsMeasure]
    labels: NDArray[np.int64] | None
    data: str
    data_sha256: str
    dataset: Dataset
    steps: Mapping[str, EngineSteps] = field(default_factory=dict)
    interrupted_of: int | None = None

    @property
    def images(self) -> int:
        """How many images were measured."""
        return len(self.dataset)

    def describe(self, place: int) -> str:
        """Return what image 0..N-1 is called."""
        return self.dataset.describe(place)

    def wrong(self, name: str) -> str | None:
        """Say why the engine of a variant is not what it was built from; None if it is, or that is not known."""
        steps = self.steps.get(name)
        return None if steps is None else steps.wrong

    def accuracy(self, name: str, manifest: Manifest, limits: OutputLimits) -> Accuracy:
        """Return the figures of a variant, with the verdict on them as they are.

        An engine that does not compute what it was built from fails, however near float32 it is.
        """
        if manifest.typed_outputs:
            found = self.compared[name].accuracy(limits, data=self.data, data_sha256=self.data_sha256)
        else:
            figures = _measure(manifest, limits.max_drop, limits.min_cosine)
            both = self.logits[self.reference], self.logits[name]
            found = figures(*both, self.labels, data=self.data, data_sha256=self.data_sha256)
        wrong = self.wrong(name)
        return found if wrong is None else msgspec.structs.replace(found, passed=False, reason=wrong)

    def noted(
        self, bundle: Bundle, limits: OutputLimits, *, thumbnails: int = MOST_FLIPS, progress: Progress = SILENT
    ) -> Bundle:
        """Write the figures of all variants, the verdicts on them as they are, and what lies behind into the bundle.

        Where Ctrl-C ended the measuring, what there is goes to variants without whole figures, and says that it is
        partial.

        Raises:
            KeyboardInterrupt: then, in the end.
        """
        if self.interrupted_of is not None:
            self._note_partial(bundle, limits, self.interrupted_of, progress)
            raise KeyboardInterrupt
        for name in self.names:
            before = bundle.variant(name).accuracy
            if before is not None and before.images > self.images:
                progress.note(f"{name}: figures of {before.images} images are replaced by those of {self.images}")
            bundle = bundle.update_variant(name, accuracy=self.accuracy(name, bundle.manifest, limits))
        return keep_details(bundle, self, thumbnails=thumbnails)

    def _note_partial(self, bundle: Bundle, limits: OutputLimits, asked: int, progress: Progress) -> None:
        said = f"{self.images} of {asked} images were measured"
        noted = []
        for name in self.names:
            before = bundle.variant(name).accuracy
            if before is not None and not before.partial:
                continue
            found = self.accuracy(name, bundle.manifest, limits)
            found = msgspec.structs.replace(
                found, passed=False, partial=True, reason=f"partial: {said}; {found.reason}"
            )
            bundle = bundle.update_variant(name, accuracy=found)
            noted.append(name)
        kept = f"partial results saved for {', '.join(noted)}" if noted else "the complete ones of before are kept"
        progress.note(f"{said}; {kept}")


def measure_variants(
    bundle: Bundle, images: DataSource, *, variants: Sequence[str] = (), progress: Progress = SILENT
) -> Measurement:
    """Run ``variants`` (all if none are named), and the float32 that they are compared with, on ``images``.

    Ctrl-C after a batch ends it there; see ``Measurement.noted``.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        DataError: if the images cannot be used.
    """
    manifest = bundle.manifest
    names = runnable(bundle, variants, progress)
    reference = _reference(bundle, names, progress)
    dataset = images.load(progress)
    wanted = LabelledBatches.of(dataset, manifest.outcomes, several=several_labels(manifest))
    progress.note(f"Validating {', '.join(names)} on {len(wanted)} images of {dataset.name}")
    if several_labels(manifest) and wanted.labels is None and (dataset.labels >= 0).any():
        progress.note("Labels of images are not looked at: one for each does not say which of several are right")
    interruption = Interruption()
    seen: list[NDArray[np.int64]] = []
    first: list[NDArray[np.float32]] = []
    size = max(1, min(_BATCH, _NUMBERS // manifest.width))
    few = min(max(len(wanted) // _ONE_IN, _FEWEST_STEPS), _MOST_STEPS, size)

    def read() -> Iterator[NDArray[np.float32]]:
        for batch in wanted.read(bundle.manifest.preprocess, batch_size=size, unreadable=images.unreadable):
            if not first:
                first.append(batch.images[:few].copy())
            seen.append(batch.indices)
            yield batch.images

    with ExitStack() as stack:
        sessions = {
            name: stack.enter_context(open_variant(bundle, name, batch=min(size, len(wanted)), progress=progress))
            for name in dict.fromkeys((reference, *names))
        }
        total = -(-len(wanted) // size)
        answers = answers_of(sessions, read(), total=total, progress=progress, interruption=interruption)
        compared: Mapping[str, OutputsMeasure] = {}
        logits: Mapping[str, NDArray[np.float32]] = {}
        if manifest.typed_outputs:
            compared = compare_outputs(manifest.typed_outputs, reference, answers)
        else:
            logits = collect_logits(answers)
        measured = np.concatenate(seen)
        steps: Mapping[str, EngineSteps] = {}
        if interruption.raised:
            rows = compared[reference].images if compared else len(logits[reference])
            measured = measured[:rows]
        else:
            few_answers = {name: _first_answers(logits, name, session, first[0]) for name, session in sessions.items()}
    if not interruption.raised:
        steps = _steps(bundle, names, first[0], few_answers, reference, progress)
    subset = Subset(dataset, measured)
    hashes = subset.image_hashes(progress)
    calibrated = [name for name in names if bundle.variant(name).precision in PLANNED]
    if calibrated and (shared := len(calibrated_on(bundle).intersection(hashes))):
        progress.note(
            f"Calibrated on {shared} of these {len(hashes)} images, which may flatter {', '.join(calibrated)}: "
            "validate on others with --data"
        )
    return Measurement(
        names=names,
        reference=reference,
        logits=logits,
        compared=compared,
        labels=None if wanted.labels is None else wanted.labels[measured],
        data=shareable(images.name),
        # Of the images that were measured alone: others may not even be there.
        data_sha256=subset.fingerprint_of(hashes),
        dataset=subset,
        steps=steps,
        interrupted_of=len(wanted) if interruption.raised else None,
    )


def _steps(
    bundle: Bundle,
    names: Sequence[str],
    images: NDArray[np.float32],
    answers: Mapping[str, NDArray[np.float32]],
    reference: str,
    progress: Progress,
) -> dict[str, EngineSteps]:
    """Return by variant whether its engine computes what it was built from, on a few ``images`` with their answers."""
    steps = {}
    for name in progress.track(names, total=len(names), label="Comparing engines with their ONNX"):
        steps[name] = compare_steps(bundle, name, images, answers[reference], answers[name])
        if (wrong := steps[name].wrong) is not None:
            progress.note(f"{name}: {wrong}")
    return steps


def _first_answers(
    logits: Mapping[str, NDArray[np.float32]], name: str, session: Session, images: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the outputs (N, width) of the first images, which are there already but for those of several kinds."""
    return logits[name][: len(images)] if name in logits else session.infer(images)


def _with_others(limits: OutputLimits, max_drop: float | None, min_cosine: float | None) -> OutputLimits:
    return replace(
        limits,
        max_drop=limits.max_drop if max_drop is None else max_drop,
        min_cosine=limits.min_cosine if min_cosine is None else min_cosine,
    )


def _measure(manifest: Manifest, max_drop: float | None, min_cosine: float | None) -> Callable[..., Accuracy]:
    """Return what measures a model of this kind."""
    if not manifest.classes:
        return partial(measure_embedding, min_cosine=MIN_COSINE if min_cosine is None else min_cosine)
    measure_variants = measure_decisions if manifest.independent else measure_accuracy
    return partial(measure_variants, max_drop=MAX_DROP if max_drop is None else max_drop)


def _reference(bundle: Bundle, names: Sequence[str], progress: Progress) -> str:
    """Return the float32 variant to compare with: the exported file, or where it cannot be run, one that is measured.

    Raises:
        MissingDependencyError: if there is none that can be run.
    """
    try:
        backend_for(bundle.variant(_REFERENCE))
    except MissingDependencyError as error:
        found = next((name for name in names if bundle.variant(name).precision == _REFERENCE), None)
        if found is None:
            raise
        progress.note(f"Comparing with {found}: {_REFERENCE} cannot be run here, {error.message}")
        return found
    return _REFERENCE
