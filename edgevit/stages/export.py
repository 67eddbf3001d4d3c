"""``edgevit export``: from a checkpoint to a bundle with a float32 ONNX file that gives what torch gives."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit import __version__
from edgevit.backends import get_backend
from edgevit.bundle.manifest import Provenance
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.batches import batches
from edgevit.data.dataset import Dataset
from edgevit.files import scratch_folder
from edgevit.graph.verify import export_verified
from edgevit.models.checkpoints import Checkpoint
from edgevit.progress import SILENT, Progress
from edgevit.stages.images import ImageSource

#: Images on which the file is compared with torch, and how many of them go into the bundle.
CHECKED = 64
GOLDEN = 8


def default_images(channels: int) -> str:
    """Return the data set that an export is checked on when none is given: one that every installation has."""
    return "fashion-mnist-sample" if channels == 1 else "shapes"


def export(
    checkpoint: Checkpoint,
    output: Path,
    images: ImageSource,
    *,
    existing: Existing = "refuse",
    progress: Progress = SILENT,
) -> Bundle:
    """Export ``checkpoint`` into a new bundle at ``output``, checked against torch on ``images``.

    Raises:
        CheckpointError: if the weights do not fit the architecture.
        VerificationError: if the ONNX file differs from torch; no bundle is made.
        BundleError: if there is something at ``output`` already.
    """
    Bundle.check_place(output, existing)
    model = checkpoint.model()
    dataset = images.load(progress)
    batch = next(batches(dataset, checkpoint.preprocess, batch_size=CHECKED, unreadable=images.unreadable))
    with scratch_folder() as folder:
        onnx = folder / "model.onnx"
        export_verified(
            model,
            onnx,
            batch.images,
            preprocess=checkpoint.preprocess,
            labels=checkpoint.labels,
            progress=progress,
        )
        with get_backend("onnxruntime").open(onnx, threads=0, settings={}) as session:
            logits = session.infer(batch.images)
        chosen = _golden(logits)
        return Bundle.create(
            output,
            name=output.name.removesuffix(".edgevit"),
            spec=checkpoint.spec,
            preprocess=checkpoint.preprocess,
            labels=checkpoint.labels,
            provenance=_provenance(checkpoint),
            float32=onnx,
            golden_images=_images(dataset, batch.indices[chosen]),
            golden_logits=logits[chosen],
            existing=existing,
        )


def _golden(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Choose images that tell a broken model from a rounded one: of each class the one that it is surest of."""
    ranked = np.sort(logits, axis=1)
    margin = ranked[:, -1] - ranked[:, -2] if logits.shape[1] > 1 else ranked[:, -1]
    surest = np.argsort(-margin, kind="stable")
    _, first = np.unique(logits.argmax(axis=1)[surest], return_index=True)
    of_each_class = surest[np.sort(first)]
    others = surest[~np.isin(surest, of_each_class)]
    return np.concatenate([of_each_class, others])[:GOLDEN]


def _images(dataset: Dataset, indices: NDArray[np.int64]) -> list[Image.Image]:
    return [dataset.image(int(index)) for index in indices]


def _provenance(checkpoint: Checkpoint) -> Provenance:
    return Provenance(
        source=checkpoint.source,
        weights_sha256=checkpoint.sha256(),
        edgevit=__version__,
        packages={name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
