"""A loaded model: from images to predictions or features, for any number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import Session, check_images
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.data.images import Channels, ImageSource, decode_image, from_bgr
from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, InputError
from edgevit.models.outputs import Output, in_words, labelled, parts
from edgevit.runtime.arguments import channels_given, flag, images_given, whole_number
from edgevit.runtime.info import RuntimeInfo, info_of
from edgevit.runtime.prediction import Prediction, finite_outputs, predictions, threshold_given
from edgevit.runtime.sharing import SharedSession
from edgevit.runtime.streaming import Camera, Streamed, is_camera, stream

if TYPE_CHECKING:
    from typing_extensions import Self

#: Images that go through the model at once; more would take memory and gain nothing on a small computer.
_BATCH = 32
#: Pixels of the input that go through at once, where images are large: 200 MB as float32.
_PIXELS = 1 << 24


class Model:
    """A loaded variant, made by ``load``. ``with`` frees it.

    Any number of threads may share one model and call its methods at the same time. Each gets the answers to its own
    images, bit for bit the same as if it were alone; calls that the engine cannot run in parallel wait for each other.
    After ``close``, calls that have started finish, and every further call raises an ``InputError``. So does every call
    in a process that was forked after ``load``: the engine's threads do not exist there, so load in each process.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        session: Session,
        notes: Sequence[str] = (),
        *,
        version: str = "",
        settings: Mapping[str, str] | None = None,
        threads: int = 0,
    ) -> None:
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
        self._largest_batch = session.largest_batch
        self._session = SharedSession(session)
        self._info = info_of(
            bundle,
            variant,
            engine_version=version,
            settings=dict(settings or variant.settings),
            threads=threads,
            batch=self._largest_batch,
            outputs=self.output_names,
            classes=len(self.labels),
            notes=self.notes,
        )

    def __repr__(self) -> str:
        answers = f"classes={len(self.labels)}" if self.labels else f"features={self._outputs}"
        if self.output_types:
            answers = f"outputs={self.output_names}"
        shape = (self.preprocess.channels, *self.preprocess.size)
        return f"<Model {self.variant.name!r}: engine={self.variant.backend}, {answers}, input={shape}>"

    def info(self) -> RuntimeInfo:
        """Return what to log about the model: variant, engine, versions, hashes. ``str`` of it is one line."""
        return self._info

    @property
    def width(self) -> int:
        """Number of values in a row that ``infer`` returns."""
        return self._outputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, as ``outputs`` returns them."""
        return tuple(output.name for output in self.output_types) or ("logits" if self.labels else "embedding",)

    def predict(
        self, image: ImageSource, *, top: int = 5, threshold: float | None = None, channels: Channels = "rgb"
    ) -> list[Prediction]:
        """Return the ``top`` most likely classes of one image, the likeliest first.

        ``image`` is a path, the bytes of a file, a Pillow image, or a uint8 array (H, W) or (H, W, C). An array's
        channels are R, G, B, or with ``channels="bgr"`` B, G, R, as OpenCV gives them. In a model with ``independent``
        labels, ``threshold`` is the probability above which a label's answer is yes; by default, 0.5.

        Raises:
            ImageError: if the image cannot be read.
            InputError: if an argument has the wrong type, ``top`` is less than 1, the model has no classes or takes no
                threshold, or it has been closed.

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

    def stream(
        self,
        images: Iterable[ImageSource] | Camera,
        *,
        batch: int | None = None,
        prefetch: int = 4,
        latest: bool = False,
        channels: Channels | None = None,
        top: int = 5,
        threshold: float | None = None,
    ) -> Iterator[Streamed]:
        """Yield an answer for each of ``images`` in order, while the next ones are decoded.

        An image that cannot be read is yielded with its ``error``, and the stream goes on. Closing the generator ends
        its thread, which may take until a camera gives its next frame.

        Args:
            images: An iterable, which may never end, or a camera: an object with a ``read()`` like that of
                ``cv2.VideoCapture``.
            batch: The most images to run at once; by default, the largest batch that the variant was built for, or 1 if
                it takes any. The stream never waits for more images to fill a batch.
            prefetch: The most images to read and prepare ahead, in a thread.
            latest: Skip images that arrive while the model is busy, so that an answer is never late.
                ``Streamed.dropped`` counts them.
            channels: Order of an array's channels; by default, "bgr" for a camera and "rgb" otherwise.
            top: As in ``predict``.
            threshold: As in ``predict``.

        Raises:
            InputError: if an argument has the wrong type, or the model has been closed.

        """
        own: Channels = "bgr" if is_camera(images) else "rgb"
        return stream(
            self,
            images,
            batch=whole_number("batch", self._largest_batch or 1 if batch is None else batch, least=1),
            prefetch=whole_number("prefetch", prefetch, least=1),
            latest=flag("latest", latest),
            channels=own if channels is None else channels_given(channels),
            top=whole_number("top", top, least=1),
            threshold=threshold_given(threshold),
        )

    def answer(
        self, rows: NDArray[np.float32], *, top: int = 5, threshold: float | None = None
    ) -> tuple[list[Prediction] | None, dict[str, NDArray[np.float32]]]:
        """Return what a row (1, ...) that ``infer`` gave means: predictions (None without classes), and named outputs.

        Raises:
            VerificationError: if a number is not finite.

        """
        typed = {output: np.ascontiguousarray(part) for output, part in parts(self.output_types, finite_outputs(rows))}
        outputs = {output.name: part[0] for output, part in typed.items()} or {self.output_names[0]: rows[0]}
        own = labelled(self.output_types)
        if not self.labels:
            return None, outputs
        logits = rows if own is None else typed[own]
        return predictions(logits, self.labels, top=top, independent=self.independent, threshold=threshold)[0], outputs

    def warm_up(self, *, batch: int = 1, runs: int = 1) -> float:
        """Run the model on black images, ``batch`` at once, and return the seconds that the last of ``runs`` took.

        The first run is slow with some engines: they allocate memory, or compile for a batch size that is new to them.

        Raises:
            InputError: if an argument is less than 1, or the model has been closed.

        """
        batch, runs = whole_number("batch", batch, least=1), whole_number("runs", runs, least=1)
        shape = (batch, self.preprocess.channels, *self.preprocess.size)
        black = np.broadcast_to(self.prepare([np.zeros((*self.preprocess.size, 3), np.uint8)]), shape)
        seconds = 0.0
        for _ in range(runs):
            start = time.perf_counter()
            self.infer(black)
            seconds = time.perf_counter() - start
        return seconds

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

        Two images are similar if the cosine of their features is near 1. For a model that was exported with
        ``l2_normalize``, the cosines are ``features @ features.T``.
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

        ``output_types`` says what each output is. A classifier gives its logits, an embedding model its embedding.

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
        return self.outputs_of(self.infer_images(images, channels=channels))

    def outputs_of(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Split rows that ``infer`` gave into outputs (B, ...), and return these by name.

        Raises:
            VerificationError: if a number is not finite.

        """
        rows = finite_outputs(rows)
        if not self.output_types:
            return {self.output_names[0]: rows}
        return {output.name: np.ascontiguousarray(part) for output, part in parts(self.output_types, rows)}

    def _meant(self) -> str:
        """Return the method that gives what the model gives."""
        return "tokens() or outputs()" if any(each.kind == "tokens" for each in self.output_types) else "outputs()"

    def infer_images(self, images: Sequence[ImageSource], *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the logits (B, classes) of any number of images, or an embedding model's features.

        For a model with ``output_types``, a row has all outputs, flattened, one after the other.

        Raises:
            ImageError: if one cannot be read.
            InputError: if ``images`` are not several images, or the model has been closed.

        """
        images = images_given(images)
        height, width = self.preprocess.size
        at_once = max(1, min(_BATCH, _PIXELS // (height * width), _PIXELS // self._outputs))
        count = len(images)
        blocks = (range(start, min(start + at_once, count)) for start in range(0, count, at_once))
        # One by one: not every sequence has slices.
        parts = [self.infer(self.prepare([images[i] for i in block], channels=channels)) for block in blocks]
        return np.concatenate(parts) if parts else np.empty((0, self._outputs), dtype=np.float32)

    def prepare(self, images: Sequence[ImageSource], *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the model's input (B, C, H, W) for images, which are decoded, resized, cropped and normalised.

        Raises:
            ImageError: if one cannot be read.
            InputError: if ``channels`` is neither "rgb" nor "bgr".

        """
        images = images_given(images)
        channels_given(channels)
        if not len(images):
            return np.empty((0, self.preprocess.channels, *self.preprocess.size), dtype=np.float32)
        frames = images if channels == "rgb" else [from_bgr(image) for image in images]
        return np.stack([self.preprocess(decode_image(image)) for image in frames])

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
        """Free the model when the calls of other threads are done. Closing it again does nothing."""
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
