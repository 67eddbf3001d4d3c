"""Observe what a model's Linear layers and convolutions read while it runs on calibration images."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.calibration.image_pass import NOTHING_SEEN, LayerObserver, Seen, observe, single_images
from edgevit.quantization.calibration.observed_model import ObservedModel
from edgevit.quantization.calibration.observers import (
    InputObserver,
    ObserverState,
    RangeObserver,
    Resumable,
    joined_states,
    restore,
)
from edgevit.quantization.calibration.pixels import PixelObserver


def calibrate(
    model: ir.Model,
    batches: Iterable[NDArray[np.float32]],
    *,
    total: int,
    model_sha256: str,
    rotated: bool = False,
    progress: Progress = SILENT,
) -> CalibrationTable:
    """Run the float32 ``model`` on preprocessed images and return what its Linear layers' inputs do.

    Images pass one at a time, so memory depends on the model alone, not on how many images there are or how they are
    batched. One pass, in float32, on the CPU.

    Args:
        model: with one input (batch, C, H, W); it stays as it is.
        batches: of images (B, C, H, W).
        total: number of batches, for the progress bar.
        model_sha256: of the file that ``model`` was read from.
        rotated: whether its residual stream has been rotated since, by ``rewrites.rotation``.
        progress: where to report to.

    Raises:
        GraphError: if it has no Linear layers, or an activation is not finite; the message names the layer.
        DataError: if there are no images, or they do not fit the model or are not finite.

    """
    observation = Observation(model, model_sha256, rotated=rotated)
    for _ in observation.update(progress.track(batches, total=total, label="Calibrating")):
        pass
    return observation.table()


class Observation:
    """The pass over the images, as far as it has come; it can stop after any batch and go on in another process."""

    def __init__(self, model: ir.Model, model_sha256: str, *, rotated: bool = False) -> None:
        """Open the float32 ``model``; ``model_sha256`` and ``rotated`` are as in ``calibrate``.

        Raises:
            GraphError: if it has no Linear layers, or cannot be run.

        """
        self._model_sha256 = model_sha256
        self._rotated = rotated
        self._engine = ObservedModel(model, convolutions=True)
        self._observers = {
            name: InputObserver(width) for name, width in zip(self._engine.layers, self._engine.widths, strict=True)
        }
        self._outputs = {name: RangeObserver() for name in self._engine.outputs}
        self._pixels = PixelObserver()
        self.seen = NOTHING_SEEN

    def update(self, batches: Iterable[NDArray[np.float32]]) -> Generator[int]:
        """Take in batches of images (B, C, H, W); yield the number of all images seen so far, after each.

        Who stops before the end closes it: threads wait in it.

        Raises:
            GraphError: if an activation is not finite; the message names the layer and the image.
            DataError: if they do not fit the model or are not finite.

        """
        observers: dict[str, LayerObserver] = {**self._observers, **self._outputs}
        with closing(observe(self._engine, observers, single_images(batches), self.seen)) as passing:
            for image, seen in passing:
                self._pixels.update(image)
                self.seen = seen
                yield seen.images

    def table(self, selection_sha256: str = "", image_hashes: Sequence[str] = ()) -> CalibrationTable:
        """Return what was seen; the hashes are as in ``CalibrationTable``.

        Raises:
            DataError: if there were no images.

        """
        self.seen.check()
        return CalibrationTable(
            inputs={name: observer.statistics() for name, observer in self._observers.items()},
            outputs={self._engine.outputs[name]: observer.statistics() for name, observer in self._outputs.items()},
            images=self.seen.images,
            model_sha256=self._model_sha256,
            images_sha256=self.seen.sha256,
            selection_sha256=selection_sha256,
            image_hashes=tuple(image_hashes),
            pixels=self._pixels.statistics(),
            rotated=self._rotated,
        )

    def state(self) -> ObserverState:
        """Return all there is to know, for ``restore``; there must have been an image."""
        seen = {"images": np.array(self.seen.images), "sha256": np.array(self.seen.sha256)}
        return joined_states(self._parts()) | seen

    def restore(self, state: ObserverState) -> None:
        """Go on from the ``state`` of a pass over the same model.

        Raises:
            ValueError: if it is of another model; any of ``arrays.DAMAGE`` if it is none.

        """
        fields = dict(state)
        seen = Seen(int(fields.pop("images")), str(fields.pop("sha256")))
        restore(self._parts(), fields)
        self.seen = seen

    def _parts(self) -> dict[str, Resumable]:
        layers = {str(index): observer for index, observer in enumerate(self._observers.values())}
        outputs = {f"output{index}": observer for index, observer in enumerate(self._outputs.values())}
        return {**layers, **outputs, "pixels": self._pixels}
