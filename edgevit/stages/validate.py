"""``edgevit validate``: every variant's accuracy against float32, on the files that ship."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.variants import backend_for, open_variant
from edgevit.bundle.manifest import Accuracy, Manifest
from edgevit.bundle.store import Bundle
from edgevit.data.dataset import Subset
from edgevit.errors import MissingDependencyError
from edgevit.evaluation.accuracy import collect_logits, measure_accuracy
from edgevit.evaluation.decisions import measure_decisions
from edgevit.evaluation.embedding import measure_embedding
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE, check_limits
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.evaluation.outputs import OutputsMeasure, compare_outputs
from edgevit.files import shareable
from edgevit.progress import SILENT, Progress
from edgevit.stages.images import DataSource, LabelledBatches, several_labels
from edgevit.stages.runnable import runnable

_REFERENCE = "float32"
_BATCH = 32
_NUMBERS = 1 << 22  # of outputs that are looked at together, where an image has many
_NO_LIMITS = OutputLimits()


def validate(
    bundle: Bundle,
    images: DataSource,
    *,
    variants: Sequence[str] = (),
    max_drop: float | None = None,
    min_cosine: float | None = None,
    limits: OutputLimits = _NO_LIMITS,
    progress: Progress = SILENT,
) -> tuple[Bundle, tuple[str, ...]]:
    """Measure ``variants`` (all if none are named) on ``images``, note it in the bundle, and return whom it measured.

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
    measured = measure(bundle, images, variants=variants, progress=progress)
    return measured.noted(bundle, limits), measured.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What variants answered to the same images, and the variant that they are compared with, ``reference``.

    ``logits`` (N, classes) are by variant; those of a model with outputs of other kinds are ``compared`` only.
    There were so many ``images``. ``labels`` (N,) are None where there are none; ``describe`` says what image 0..N-1 is
    called.
    """

    names: tuple[str, ...]
    reference: str
    logits: Mapping[str, NDArray[np.float32]]
    compared: Mapping[str, OutputsMeasure]
    images: int
    labels: NDArray[np.int64] | None
    data: str
    data_sha256: str
    describe: Callable[[int], str]

    def accuracy(self, name: str, manifest: Manifest, limits: OutputLimits) -> Accuracy:
        """Return the figures of a variant, with the verdict on them as they are."""
        if manifest.typed_outputs:
            return self.compared[name].accuracy(limits, data=self.data, data_sha256=self.data_sha256)
        figures = _measure(manifest, limits.max_drop, limits.min_cosine)
        return figures(
            self.logits[self.reference], self.logits[name], self.labels, data=self.data, data_sha256=self.data_sha256
        )

    def noted(self, bundle: Bundle, limits: OutputLimits) -> Bundle:
        """Write the figures of all variants, and the verdicts on them as they are, into the bundle."""
        for name in self.names:
            bundle = bundle.update_variant(name, accuracy=self.accuracy(name, bundle.manifest, limits))
        return bundle


def measure(
    bundle: Bundle, images: DataSource, *, variants: Sequence[str] = (), progress: Progress = SILENT
) -> Measurement:
    """Run ``variants`` (all if none are named), and the float32 that they are compared with, on ``images``.

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
    seen: list[NDArray[np.int64]] = []
    size = max(1, min(_BATCH, _NUMBERS // manifest.width))

    def read() -> Iterator[NDArray[np.float32]]:
        for batch in wanted.read(bundle.manifest.preprocess, batch_size=size, unreadable=images.unreadable):
            seen.append(batch.indices)
            yield batch.images

    with ExitStack() as stack:
        sessions = {
            name: stack.enter_context(open_variant(bundle, name, progress=progress))
            for name in dict.fromkeys((reference, *names))
        }
        total = -(-len(wanted) // size)
        compared: Mapping[str, OutputsMeasure] = {}
        logits: Mapping[str, NDArray[np.float32]] = {}
        if manifest.typed_outputs:
            compared = compare_outputs(manifest.typed_outputs, reference, sessions, read(), total, progress)
        else:
            logits = collect_logits(sessions, read(), total=total, progress=progress)
    measured = np.concatenate(seen)
    return Measurement(
        names=names,
        reference=reference,
        logits=logits,
        compared=compared,
        images=len(measured),
        labels=None if wanted.labels is None else wanted.labels[measured],
        data=shareable(images.name),
        # Of the images that were measured alone: others may not even be there.
        data_sha256=Subset(dataset, measured).fingerprint(progress),
        describe=lambda place: dataset.describe(int(measured[place])),
    )


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
    measure = measure_decisions if manifest.independent else measure_accuracy
    return partial(measure, max_drop=MAX_DROP if max_drop is None else max_drop)


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
