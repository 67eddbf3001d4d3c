"""A loaded model: from images to predictions or features, for any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import Session, check_images
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.data.images import Channels, ImageSource, decode, from_bgr
from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, InputError
from edgevit.models.outputs import Output, in_words, labelled, parts
from edgevit.runtime.arguments import images_given, whole_number
from edgevit.runtime.prediction import Prediction, finite_outputs, predictions
from edgevit.runtime.sharing import SharedSession

if TYPE_CHECKING:
    from typing_extensions import Self

#: Images that go through the model at once; more would take memory and gain nothing on a small computer.
_BATCH = 32
#: Pixels of the input that go through at once, where images are large: 200 MB as float32.
_PIXELS = 1 << 24


class Model:
    """A loaded variant; a context manager that frees it. Made by ``load``.

    Any number of threads may share one model and call all of its methods at once: each gets the answers to its own
    images, the same bit for bit as alone. What the engine cannot compute side by side, it computes one after the other.
    After ``close``, what was begun is finished, and every further call raises an ``InputError``. So does every call in
    a process that was forked after ``load``, since engines keep threads, which do not come along: load in each process.
    """

    def __init__(self, bundle: Bundle, variant: Variant, session: Session, notes: Sequence[str] = ()) -> None:
        self.variant = variant
        #: What should be known of how it was loaded, such as why another variant was not.
        self.notes: tuple[str, ...] = tuple(notes)
        #: What each output is, where the model gives anything but one row of logits or features; else nothing.
        self.output_types: tuple[Output, ...] = bundle.manifest.typed_outputs
        own = labelled(self.output_types)
        #: What it can say of an image: its classes, or those of the one of its outputs that has labels.
        self.labels: tuple[str, ...] = bundle.manifest.outcomes if own is None else own.labels
        #: Whether each label is decided by itself, by a threshold.
        self.independent: bool = bundle.manifest.independent if own is None else own.independent
        self.preprocess: Preprocess = bundle.manifest.preprocess
        self._outputs = bundle.manifest.width
        self._session = SharedSession(session)

    def __repr__(self) -> str:
        answers = f"classes={len(self.labels)}" if self.labels else f"features={self._outputs}"
        if self.output_types:
            answers = f"outputs={self.output_names}"
        shape = (self.preprocess.channels, *self.preprocess.size)
        return f"<Model {self.variant.name!r}: engine={self.variant.backend}, {answers}, input={shape}>"

    @property
    def output_names(self) -> tuple[str, ...]:
        """What ``outputs`` calls what it gives."""
        return tuple(output.name for output in self.output_types) or ("logits" if self.labels else "embedding",)

    def predict(
        self, image: ImageSource, *, top: int = 5, threshold: float | None = None, channels: Channels = "rgb"
    ) -> list[Prediction]:
        """Return the ``top`` most likely classes of one image, the likeliest first.

        ``image`` is a path, the bytes of a file, a Pillow image, or a uint8 array (H, W) or (H, W, C) whose channels
        are R, G, B; with ``channels="bgr"`` they are B, G, R, as cameras' frames have them in OpenCV. ``threshold`` is
        the probability above which a label is decided on, 0.5 without one, in a model of ``independent`` labels.

        Raises:
            ImageError: if it cannot be read.
            InputError: if ``top`` is less than 1, ``channels`` is something else, the model has no classes or no
                thresholds, or it has been closed.

        """
        return self.predict_batch([image], top=top, threshold=threshold, channels=channels)[0]

    def predict_batch(
        self,
        images: Sequence[ImageSource],
        *,
        top: int = 5,
        threshold: float | None = None,
        channels: Channels = "rgb",
    ) -> list[list[Prediction]]:
        """Return the ``top`` most likely classes of each image, as ``predict`` does."""
        images, top = images_given(images), whole_number("top", top, least=1)
        if self.output_types and not self.labels:
            raise InputError(
                f"the model says no classes of an image, it gives {in_words(self.output_types)}",
                remedy=f"call its {self._meant()}",
            )
        own = labelled(self.output_types)
        rows = self.infer_images(images, channels=channels)
        logits = rows if own is None else next(part for output, part in parts(self.output_types, rows) if output is own)
        return predictions(logits, self.labels, top=top, independent=self.independent, threshold=threshold)

    def embed(self, image: ImageSource, *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return an embedding model's features (width,) of one image, of any kind that ``predict`` takes.

        Raises:
            ImageError: if it cannot be read.
            InputError: if the model is a classifier, or has been closed.
            VerificationError: if a feature is not a finite number.

        """
        return np.asarray(self.embed_batch([image], channels=channels)[0])

    def embed_batch(self, images: Sequence[ImageSource], *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return an embedding model's features (B, width) of images, as ``embed`` does.

        Two images are alike where the cosine of their features is near 1; of a model that was exported with
        ``--l2-normalize`` that is ``features @ features.T``.
        """
        if self.output_types:
            raise InputError(
                f"the model gives {in_words(self.output_types)}, not one embedding",
                remedy=f"call its {self._meant()}",
            )
        if self.labels:
            raise InputError(
                f"the model has {len(self.labels)} classes and gives no features",
                remedy="call its predict(), or export the checkpoint without its head",
            )
        return finite_outputs(self.infer_images(images, channels=channels))

    def tokens(self, image: ImageSource, *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the patch tokens (N, D) of one image, row by row of patches, of any kind that ``predict`` takes.

        Raises:
            ImageError: if it cannot be read.
            InputError: if the model gives no tokens, or several kinds, or has been closed.
            VerificationError: if a number is not finite.

        """
        return np.asarray(self.tokens_batch([image], channels=channels)[0])

    def tokens_batch(self, images: Sequence[ImageSource], *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the patch tokens (B, N, D) of images, as ``tokens`` does."""
        names = [output.name for output in self.output_types if output.kind == "tokens"]
        if len(names) != 1:
            method = "outputs()" if self.output_types else "predict()" if self.labels else "embed()"
            raise InputError(
                f"the model gives {', '.join(self.output_names)}, {'several tokens' if names else 'no tokens'}",
                remedy=f"call its {method}, or export its checkpoint again with --output tokens",
            )
        return self.outputs_batch(images, channels=channels)[names[0]]

    def outputs(self, image: ImageSource, *, channels: Channels = "rgb") -> dict[str, NDArray[np.float32]]:
        """Return each output for one image, of any kind that ``predict`` takes, by its name.

        What each is ``output_types`` tells. A classifier gives its logits, an embedding model its embedding.

        Raises:
            ImageError: if it cannot be read.
            InputError: if the model has been closed.
            VerificationError: if a number is not finite.

        """
        return {name: given[0] for name, given in self.outputs_batch([image], channels=channels).items()}

    def outputs_batch(
        self, images: Sequence[ImageSource], *, channels: Channels = "rgb"
    ) -> dict[str, NDArray[np.float32]]:
        """Return each output (B, ...) of images by its name, as ``outputs`` does."""
        rows = finite_outputs(self.infer_images(images, channels=channels))
        if not self.output_types:
            return {self.output_names[0]: rows}
        return {output.name: np.ascontiguousarray(part) for output, part in parts(self.output_types, rows)}

    def _meant(self) -> str:
        """Return the method that gives what the model gives."""
        return "tokens() or outputs()" if any(each.kind == "tokens" for each in self.output_types) else "outputs()"

    def infer_images(self, images: Sequence[ImageSource], *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the logits (B, classes), or an embedding model's features, of any number of images of any kind.

        Of a model with ``output_types`` a row has all outputs, flattened, one after the other.

        Raises:
            ImageError: if one cannot be read.
            InputError: if ``images`` are not several images, or the model has been closed.

        """
        images = images_given(images)
        height, width = self.preprocess.size
        at_once = max(1, min(_BATCH, _PIXELS // (height * width), _PIXELS // self._outputs))
        parts = [
            self.infer(self.prepare(images[start : start + at_once], channels=channels))
            for start in range(0, len(images), at_once)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self._outputs), dtype=np.float32)

    def prepare(self, images: Sequence[ImageSource], *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the model's input (B, C, H, W) for images, which are decoded, resized, cropped and normalised.

        Raises:
            ImageError: if one cannot be read.
            InputError: if ``channels`` is neither "rgb" nor "bgr".

        """
        images = images_given(images)
        if channels not in get_args(Channels):
            raise InputError(f"channels is {channels!r}", remedy="write channels='rgb', or channels='bgr'")
        if not len(images):
            return np.empty((0, self.preprocess.channels, *self.preprocess.size), dtype=np.float32)
        frames = images if channels == "rgb" else [from_bgr(image) for image in images]
        return np.stack([self.preprocess(decode(image)) for image in frames])

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes), or an embedding model's features, of preprocessed images (B, C, H, W).

        Raises:
            DataError: if ``images`` are not float32 of that shape.
            InputError: if the model has been closed.

        """
        with self._session.use() as session:
            images = _as_array(images)
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


def _as_array(images: Any) -> NDArray[Any]:  # noqa: ANN401 - what an application gives
    try:
        return np.asarray(images)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors that are on a GPU, or need gradients
        raise DataError(
            f"images are a {type(images).__name__} that is no array: {error}",
            remedy="give float32 values with shape (images, channels, height, width), such as prepare() returns",
        ) from error
