"""Observe the inputs of a model's Linear layers while it runs on calibration images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgevit.backends.base import check_images
from edgevit.backends.onnxruntime import engine_errors
from edgevit.errors import DataError, GraphError
from edgevit.files import sha256_of
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit.select_tokens import SelectTokens
from edgevit.quantization.linears import find_linears, load_graph
from edgevit.quantization.observers import RangeObserver
from edgevit.quantization.table import CalibrationTable


class Observer(Protocol):
    """Takes in a layer's inputs, image by image, in memory that does not grow."""

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the input (..., K) for one image."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """How many images passed, and the SHA-256 of all of them in order."""

    images: int
    sha256: str


def calibrate(
    model: Path, batches: Iterable[NDArray[np.float32]], *, total: int, progress: Progress = SILENT
) -> CalibrationTable:
    """Run the float32 ONNX file ``model`` on preprocessed images and return the ranges of its Linear layers' inputs.

    Images pass one at a time, so memory depends on the model alone, not on how many images there are or how they are
    batched. One pass, in float32, on the CPU.

    Args:
        model: with one input (batch, C, H, W).
        batches: of images (B, C, H, W).
        total: number of batches, for the progress bar.
        progress: where to report to.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers, or an activation is not finite; the
            message names the layer.
        DataError: if there are no images, or they do not fit the model or are not finite.

    """
    engine = ObservedModel(model)
    observers = {name: RangeObserver() for name in engine.layers}
    seen = observe(engine, observers, progress.track(batches, total=total, label="Observing ranges"))
    return CalibrationTable(
        inputs={name: observer.statistics() for name, observer in observers.items()},
        images=seen.images,
        model_sha256=sha256_of(model),
        images_sha256=seen.sha256,
    )


def observe(engine: ObservedModel, observers: Mapping[str, Observer], batches: Iterable[NDArray[np.float32]]) -> Seen:
    """Show the input of each layer that has one of ``observers`` to it, one image after the other.

    Raises:
        GraphError: if an activation is not finite; the message names the layer and the image.
        DataError: if there are no images, or they do not fit the model or are not finite.

    """
    digest = hashlib.sha256()
    count = 0
    for image in one_by_one(batches):
        for name, values in zip([*engine.layers, *engine.others], engine.run(image), strict=True):
            if name in observers:
                _check_finite(name, values, count)
                observers[name].update(values)
        digest.update(image.tobytes())
        count += 1
    if not count:
        raise DataError("there are no calibration images", remedy="give at least one image with --data, better 128")
    return Seen(count, digest.hexdigest())


class ObservedModel:
    """The model in onnxruntime, with the inputs of its Linear layers as its outputs.

    Tokens that the head does not look at are left out behind the last attention, as emitters leave them out: what is
    seen of the layers there is what counts. ``also`` gives further values to look at, by the names they shall have;
    ``layers`` and ``others`` are the names of both.
    """

    def __init__(self, path: Path, also: Callable[[ir.Graph], Mapping[str, ir.Value]] = lambda _: {}) -> None:
        model = load_graph(path)
        common.ShapeInferencePass()(model)  # files of others seldom say the shapes of values
        SelectTokens()(model)
        layers = {layer.name: layer.input for layer in find_linears(model.graph)}
        others = also(model.graph)
        observed = {**layers, **others}
        if len(model.graph.inputs) != 1:
            raise GraphError(
                f"{path} has {len(model.graph.inputs)} inputs, not one", remedy="give a model that takes images alone"
            )
        self.layers, self.others = list(layers), list(others)
        self._values = [str(value.name) for value in observed.values()]
        self._distinct = list(dict.fromkeys(self._values))
        self._input = str(model.graph.inputs[0].name)
        self._session = _session(model, list(dict.fromkeys(observed.values())), path)
        shape = self._session.get_inputs()[0].shape
        self._shape = [size if isinstance(size, int) else None for size in shape]

    def run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return for one image (1, C, H, W) the input of each layer, then the other values."""
        check_images(image, self._shape)
        try:
            found = dict(zip(self._distinct, self._session.run(self._distinct, {self._input: image}), strict=True))
        except engine_errors() as error:
            raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error
        return [found[name] for name in self._values]


def _session(model: ir.Model, observed: list[ir.Value], path: Path) -> onnxruntime.InferenceSession:
    model.graph.outputs.clear()
    model.graph.outputs.extend(observed)
    for value in observed:
        value.dtype = value.dtype or ir.DataType.FLOAT
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        content = ir.serde.serialize_model(model).SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except engine_errors() as error:
        raise GraphError(f"{path} cannot be run by onnxruntime: {error}", remedy="export it again") from error


def one_by_one(batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield each image as a batch of one (1, C, H, W)."""
    for batch in batches:
        for image in batch:
            if not np.isfinite(image).all():
                raise DataError("a calibration image has values that are not finite", remedy="leave that image out")
            yield np.ascontiguousarray(image[None])


def _check_finite(name: str, values: NDArray[np.float32], image: int) -> None:
    if not np.isfinite(values).all():
        raise GraphError(
            f"the input of '{name}' has values that are not finite on calibration image {image}",
            remedy="check that the model gives finite logits on this image in float32: its weights may be broken",
        )
