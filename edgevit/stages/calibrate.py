"""Calibrate a bundle's model: not again where that was done, and on from where it was killed.

What calibration saw is kept in the bundle (``calibration/table.npz``) with a hash of the model's file, and one of the
images: of the bytes of their files, in order, with the preprocessing. Both are known before any image is decoded. While
images are looked at, what was seen so far is kept as a draft (``draft``).
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.reading import logical_path
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Batch, PixelCache, batches
from edgevit.data.dataset import Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, ImageError
from edgevit.graph.convolutions import find_convolutions
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.calibrate import Observation
from edgevit.quantization.calibration.calibration_table import FILE_NAME, SCHEMA_VERSION, CalibrationTable
from edgevit.quantization.ptq import FloatModel
from edgevit.stages.draft import Draft
from edgevit.stages.images import DataSource, data_warnings

TABLE = f"calibration/{FILE_NAME}"

_UNREADABLE = "unreadable"

BATCH = 16  # images that are decoded at a time

EVERY_S = 10.0  # what was seen is kept


@dataclass(frozen=True, slots=True)
class Selection:
    """The images of ``dataset`` that a model sees, and a hash of them and of how they are prepared for it.

    ``image_hashes`` are of the images one by one, without those that cannot be read.
    """

    dataset: Dataset
    preprocess: Preprocess
    images: DataSource
    sha256: str
    image_hashes: tuple[str, ...] = ()
    cache: PixelCache = field(default_factory=PixelCache)

    @classmethod
    def of(
        cls,
        images: DataSource,
        preprocess: Preprocess,
        progress: Progress = SILENT,
        *,
        dataset: Dataset | None = None,
    ) -> Selection:
        """Load ``images`` and hash them; ``dataset`` are those images where they are loaded already.

        Raises:
            DataError: if there are none.
            MissingDataError: if they are not on this machine and cannot be fetched.
        """
        dataset = images.load(progress) if dataset is None else dataset
        digest = hashlib.sha256(msgspec.json.encode(preprocess))
        indices = progress.track(range(len(dataset)), total=len(dataset), label="Hashing the images")
        hashes = [_hash_of(dataset, index) for index in indices]
        digest.update("".join(hashes).encode())
        return cls(
            dataset, preprocess, images, digest.hexdigest(), tuple(each for each in hashes if each != _UNREADABLE)
        )

    def images_alone(self) -> Iterator[NDArray[np.float32]]:
        """Yield the images, each (1, C, H, W), from the first on."""
        for batch in self.read():
            yield batch.images

    def read(self, start: int = 0) -> Iterator[Batch]:
        """Yield the images from number ``start`` on, one by one; what cannot be read is left out."""
        for batch in batches(
            self.dataset,
            self.preprocess,
            batch_size=BATCH,
            indices=np.arange(start, len(self.dataset)),
            unreadable=self.images.unreadable,
            cache=self.cache,
        ):
            for row in range(len(batch.indices)):
                yield Batch(batch.indices[row : row + 1], batch.images[row : row + 1])


def _hash_of(dataset: Dataset, index: int) -> str:
    try:
        return dataset.image_sha256(index)
    except ImageError:
        return _UNREADABLE  # it is left out, or stops the command, when it is decoded


def calibrated(
    bundle: Bundle, model: FloatModel, selection: Selection, progress: Progress = SILENT, *, keep: bool = True
) -> CalibrationTable:
    """Return what the layers of ``model``, the bundle's float32 file, read on the images.

    With ``keep``, what was seen is kept in the bundle's folder meanwhile.

    Raises:
        GraphError: if an activation is not finite, or the model has no Linear layers.
        DataError: if no image can be read.
        StorageError: if what was seen cannot be kept.
    """
    table = None if model.token_schedule else _kept(bundle, selection.sha256)  # of the float32 file as it is
    if table is not None and table.rotated != model.rotated:
        table = None
    if table is not None and not {each.name for each in find_convolutions(model.model.graph)} <= set(table.outputs):
        table = None  # of a version that looked at Linear layers alone
    if table is not None:
        progress.note(f"Reusing the calibration of these {table.images} images")
    else:
        progress.note(f"Calibrating on {len(selection.dataset)} images of {selection.dataset.name}")
        table = _drafted(bundle, model, selection, progress) if keep else _unkept(model, selection, progress)
    for warning in data_warnings(selection.dataset, table.pixels):
        progress.note(warning)
    return table


def _unkept(model: FloatModel, selection: Selection, progress: Progress) -> CalibrationTable:
    observation = Observation(model.model, model.sha256, rotated=model.rotated)
    read = progress.track(selection.read(), total=len(selection.dataset), label="Calibrating")
    with closing(observation.update(batch.images for batch in read)) as passing:
        for _ in passing:
            pass
    return observation.table(selection.sha256, selection.image_hashes)


def _drafted(bundle: Bundle, model: FloatModel, selection: Selection, progress: Progress) -> CalibrationTable:
    merged = f" {model.token_schedule}" if model.token_schedule else ""
    key = f"{SCHEMA_VERSION} {bundle.variant('float32').files[0].sha256} {selection.sha256}{merged}"
    draft = Draft(bundle.path, key)
    observation, start = draft.restored(
        lambda: Observation(model.model, model.sha256, rotated=model.rotated), len(selection.dataset)
    )
    return _observe(draft, observation, start, selection, progress)


def _kept(bundle: Bundle, selection_sha256: str) -> CalibrationTable | None:
    """Return the bundle's table, if it is of this model and these images."""
    if TABLE not in {logical_path(file) for file in bundle.manifest.extra}:
        return None
    try:
        table = CalibrationTable.load(bundle.verify_extra(TABLE).path)
    except BundleError:  # damaged, or of another version: it is made again
        return None
    made_for = (table.model_sha256, table.selection_sha256)
    return table if made_for == (bundle.variant("float32").files[0].sha256, selection_sha256) else None


def _observe(
    draft: Draft, observation: Observation, start: int, selection: Selection, progress: Progress
) -> CalibrationTable:
    if start:
        progress.note(f"Going on after {start} images, where an earlier calibration stopped")
    first = max(start - 1, 0)  # the last image seen is read again: it can be read, where perhaps no other can
    positions: deque[int] = deque()  # behind each image that was read and not yet seen

    def unseen(batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        for batch in batches:
            rows = batch.indices >= start
            positions.extend((batch.indices[rows] + 1).tolist())
            yield batch.images[rows]

    kept_at = time.monotonic()
    read = progress.track(selection.read(first), total=len(selection.dataset) - first, label="Calibrating")
    position = start
    with closing(observation.update(unseen(read))) as passing:
        for _ in passing:
            position = positions.popleft()
            if time.monotonic() - kept_at >= EVERY_S:
                draft.keep(observation, position)
                kept_at = time.monotonic()
    if draft.exists():  # what follows may be interrupted, too
        draft.keep(observation, position)
    return observation.table(selection.sha256, selection.image_hashes)
