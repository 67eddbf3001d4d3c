"""A model on the device: loaded, checked, and ready for images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import BACKENDS, why_not_run
from edgevit.backends.base import Session, check_images
from edgevit.backends.variants import open_variant, why_not_here
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.data.images import ImageSource, decode
from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError
from edgevit.progress import SILENT, Progress
from edgevit.runtime.prediction import Prediction, finite_outputs, predictions
from edgevit.runtime.selection import select_variant
from edgevit.runtime.sharing import SharedSession
from edgevit.runtime.verification import Check, verify_golden

if TYPE_CHECKING:
    from typing_extensions import Self

#: Images that go through the model at once; more would take memory and gain nothing on a small computer.
_BATCH = 32


def load(
    bundle: str | Path,
    *,
    variant: str | None = None,
    threads: int = 0,
    check: Check = "golden",
    settings: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> Model:
    """Load a variant of the bundle in the folder ``bundle``; without a name, the one that serves best here.

    ``settings`` of the backend go before those of the variant, such as ``{"rebuild": "yes"}`` for a TensorRT engine.
    ``threads`` 0 leaves their number to the backend. The files are always checked against their SHA-256; unless
    ``check`` is "files", the golden images are run too and the answers compared with float32's. ``progress`` shows what
    takes long, such as an engine that is built anew.

    Raises:
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if the backend is not installed, or the device that the variant is for is not here.
        VerificationError: if the model answers otherwise than when it was exported.

    """
    opened = Bundle.open(bundle)
    chosen = opened.variant(variant) if variant else _best(opened, settings or {})
    session = open_variant(opened, chosen.name, threads=threads, settings=settings, progress=progress)
    model = Model(opened, chosen, session)
    try:
        if check == "golden":
            golden = opened.golden()
            answers = model.infer(model.prepare(golden.images))
            verify_golden(answers, golden.logits, precision=chosen.precision, classes=len(model.labels))
    except BaseException:
        model.close()
        raise
    return model


def _best(bundle: Bundle, settings: Mapping[str, str]) -> Variant:
    """Return the variant that serves best here, of those whose engine and device are here."""
    variants = bundle.manifest.variants
    needed = {variant.backend for variant in variants}.intersection(BACKENDS)
    elsewhere = [variant.name for variant in variants if why_not_here(bundle, variant, settings) is not None]
    running = [name for name in needed if why_not_run(name) is None]
    return select_variant(bundle.manifest, running, elsewhere)


class Model:
    """A loaded variant; a context manager that frees it. Made by ``load``.

    Any number of threads may share one model and call all of its methods at once: each gets the answers to its own
    images, the same bit for bit as alone. What the engine cannot compute side by side, it computes one after the other.
    After ``close``, what was begun is finished, and every further call raises an ``InputError``. So does every call in
    a process that was forked after ``load``, since engines keep threads, which do not come along: load in each process.
    """

    def __init__(self, bundle: Bundle, variant: Variant, session: Session) -> None:
        self.variant = variant
        self.labels: tuple[str, ...] = bundle.manifest.labels
        self.preprocess: Preprocess = bundle.manifest.preprocess
        self._outputs = bundle.manifest.model.outputs
        self._session = SharedSession(session)

    def predict(self, image: ImageSource, *, top: int = 5) -> list[Prediction]:
        """Return the ``top`` most likely classes of one image, the likeliest first.

        ``image`` is a path, the bytes of a file, a Pillow image, or a uint8 array (H, W) or (H, W, C).

        Raises:
            ImageError: if it cannot be read.
            InputError: if ``top`` is less than 1, the model has no classes, or it has been closed.

        """
        return self.predict_batch([image], top=top)[0]

    def predict_batch(self, images: Sequence[ImageSource], *, top: int = 5) -> list[list[Prediction]]:
        """Return the ``top`` most likely classes of each image, as ``predict`` does."""
        answers: list[list[Prediction]] = []
        for start in range(0, len(images), _BATCH):
            logits = self.infer(self.prepare(images[start : start + _BATCH]))
            answers += predictions(logits, self.labels, top=top)
        return answers

    def embed(self, image: ImageSource) -> NDArray[np.float32]:
        """Return an embedding model's features (width,) of one image, of any kind that ``predict`` takes.

        Raises:
            ImageError: if it cannot be read.
            InputError: if the model is a classifier, or has been closed.
            VerificationError: if a feature is not a finite number.

        """
        return np.asarray(self.embed_batch([image])[0])

    def embed_batch(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """Return an embedding model's features (B, width) of images, as ``embed`` does.

        Two images are alike where the cosine of their features is near 1; of a model that was exported with
        ``--l2-normalize`` that is ``features @ features.T``.
        """
        if self.labels:
            raise InputError(
                f"the model has {len(self.labels)} classes and gives no features",
                remedy="call its predict(), or export the checkpoint without its head",
            )
        parts = [
            finite_outputs(self.infer(self.prepare(images[start : start + _BATCH])))
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self._outputs), dtype=np.float32)

    def prepare(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """Return the model's input (B, C, H, W) for images, which are decoded, resized, cropped and normalised.

        Raises:
            ImageError: if one cannot be read.

        """
        return np.stack([self.preprocess(decode(image)) for image in images])

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes), or an embedding model's features, of preprocessed images (B, C, H, W).

        Raises:
            DataError: if ``images`` are not float32 of that shape.
            InputError: if the model has been closed.

        """
        with self._session.use() as session:
            images = np.asarray(images)
            check_images(images, (None, self.preprocess.channels, *self.preprocess.size))
            return session.infer(np.ascontiguousarray(images))

    def close(self) -> None:
        """Free the model, once what other threads have begun is done; a second time does nothing."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
