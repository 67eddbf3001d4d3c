"""``edgevit export``: from a checkpoint, or an ONNX file, to a bundle with a float32 file that gives the same."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit import __version__
from edgevit.backends import REFERENCE, get_backend
from edgevit.bundle.manifest import Provenance
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.batches import batches
from edgevit.data.dataset import Dataset
from edgevit.data.names import check_shown
from edgevit.files import scratch_folder, shareable
from edgevit.graph.external_onnx import OnnxModel, write_verified
from edgevit.graph.running import ExportCheck
from edgevit.graph.saving import contents_of
from edgevit.models.outputs import Output
from edgevit.progress import SILENT, Progress
from edgevit.stages.images import DataSource
from edgevit.stages.peers import Peer, check_equal
from edgevit.statistics import as_classes
from edgevit.versions import narrowed

if TYPE_CHECKING:
    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.dense import DenseCheckpoint

    #: What a bundle can be made of.
    Exportable: TypeAlias = Checkpoint | DenseCheckpoint | OnnxModel

# A graph needs no torch: what brings it is imported where a checkpoint is exported.

#: Images on which the file is compared with torch at the most, and how many of them go into the bundle.
CHECKED = 64
CHECKED_LARGE = 16  # of a model with outputs of its own, which may take much memory each
GOLDEN = 8
#: Bytes of what a model with outputs of its own gives for them, at the most, unless that is for one image.
_GOLDEN_BYTES = 8 << 20

_OF_GRAPHS = ("onnx", "onnx-ir", REFERENCE)
_OF_CHECKPOINTS = ("torch", "onnx", "onnxscript", REFERENCE)


def default_images(channels: int) -> str:
    """Return the data set that an export is checked on when none is given: one that every installation has."""
    return "fashion-mnist-sample" if channels == 1 else "shapes"


def export(
    model: Exportable,
    output: Path,
    images: DataSource,
    *,
    existing: Existing = "refuse",
    peer: Peer | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Export ``model`` into a new bundle at ``output``, checked on ``images`` against torch, or the file given.

    ``peer`` is the same model in another library, which it is compared with too.

    Raises:
        CheckpointError: if the weights do not fit the architecture.
        DataError: if there are no images, or a class has a name that cannot be shown.
        GraphError: if the ONNX file given cannot be run, or takes one image only.
        VerificationError: if the bundle's file differs from torch, the file given or ``peer``; no bundle is made.
        BundleError: if there is something at ``output`` already.
    """
    Bundle.check_place(output, existing)
    outputs = declared_outputs(model)
    for labels in (model.labels, *(each.labels for each in outputs)):
        check_shown(labels, model.source)
    dataset = images.load(progress)
    checked = CHECKED_LARGE if outputs else CHECKED
    batch = next(batches(dataset, model.preprocess, batch_size=checked, unreadable=images.unreadable))
    backend = get_backend(REFERENCE)
    with scratch_folder() as folder:
        onnx = folder / "model.onnx"
        images_checked = batch.images[: _write(model, onnx, batch.images, progress).images]
        with backend.open(onnx, threads=0, settings={}) as session:
            logits = session.infer(images_checked)
        if peer is not None:
            if peer.note:
                progress.note(peer.note)
            check_equal(peer, images_checked, logits)
        chosen = _first(logits) if outputs else _golden(logits)
        return Bundle.create(
            output,
            name=output.name.removesuffix(".edgevit"),
            spec=model.spec,
            preprocess=model.preprocess,
            labels=model.labels,
            activation=model.activation,
            outputs=outputs,
            provenance=_provenance(model),
            backend=REFERENCE,
            float32=onnx,
            golden_images=_images(dataset, batch.indices[chosen]),
            golden_logits=logits[chosen],
            versions=None if (first := backend.first_version(*contents_of(onnx))) is None else narrowed(None, first),
            existing=existing,
        )


def _write(model: Exportable, path: Path, images: NDArray[np.float32], progress: Progress) -> ExportCheck:
    """Write the float32 file of ``model`` to ``path``, checked on the first of ``images``, and return on how many."""
    if isinstance(model, OnnxModel):
        return write_verified(model, path, images, progress=progress)
    from edgevit.graph.verify import export_verified

    return export_verified(
        model.model(),
        path,
        images,
        preprocess=model.preprocess,
        labels=model.labels,
        activation=model.activation,
        progress=progress,
    )


def declared_outputs(model: Exportable) -> tuple[Output, ...]:
    """Return the outputs of a model that gives anything but one row of logits or features; else none."""
    found: tuple[Output, ...] = getattr(model, "outputs", ())
    return found


def classes_of(model: Exportable) -> int:
    """Return how many classes ``model`` chooses from; 0 for an embedding model, and one with outputs of its own."""
    return 0 if declared_outputs(model) else model.spec.classes


def _first(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Choose the first images, as many as can be kept with all that the model gives for them."""
    return np.arange(max(1, min(GOLDEN, len(rows), _GOLDEN_BYTES // rows[0].nbytes)), dtype=np.int64)


def _golden(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Choose images that tell a broken model from a rounded one: of each class the one that it is surest of."""
    logits = as_classes(logits)
    ranked = np.sort(logits, axis=1)
    margin = ranked[:, -1] - ranked[:, -2] if logits.shape[1] > 1 else ranked[:, -1]
    surest = np.argsort(-margin, kind="stable")
    _, first = np.unique(logits.argmax(axis=1)[surest], return_index=True)
    of_each_class = surest[np.sort(first)]
    others = surest[~np.isin(surest, of_each_class)]
    return np.concatenate([of_each_class, others])[:GOLDEN]


def _images(dataset: Dataset, indices: NDArray[np.int64]) -> list[Image.Image]:
    return [dataset.image(int(index)) for index in indices]


def _provenance(model: Exportable) -> Provenance:
    packages = _OF_GRAPHS if isinstance(model, OnnxModel) else _OF_CHECKPOINTS
    return Provenance(
        source=shareable(model.source),
        weights_sha256=model.sha256(),
        edgevit=__version__,
        packages={name: version(name) for name in packages},
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        revision=model.origin.revision,
        files=model.origin.digests(),
        license=model.origin.license,
    )
